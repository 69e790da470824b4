"""From log files to one transaction for each batch: read, process, build the commit, commit."""
