"""Which metrics exist, how a batch changes them, and how a scrape answers."""
