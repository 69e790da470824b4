"""Turns log files into one transaction per batch: read, process, build the commit, commit."""
