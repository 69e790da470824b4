"""End-to-end tests: the exporter among the real programs of its users. `make e2e` runs them; `make test` does without."""
