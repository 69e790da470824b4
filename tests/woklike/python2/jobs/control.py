"""No URL of this plug-in needs more than its own class."""

sub_nodes = {}
