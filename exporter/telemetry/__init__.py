"""What is said to backends and people, as OTLP bytes and rows."""
