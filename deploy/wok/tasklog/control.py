"""Wok's loader asks every plug-in for this table of URLs. This plug-in serves none."""

sub_nodes = {}
