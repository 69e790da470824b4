"""The metrics: their definitions, how a batch changes them, and the answers to scrapes."""
