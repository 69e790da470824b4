"""What Prometheus and probes ask for, over HTTP."""
