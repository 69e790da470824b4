"""Match tasks to requests, and grade how certain each match is."""
