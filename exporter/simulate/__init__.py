"""A simulated Wok, for the demo, the tests and the benchmark."""
