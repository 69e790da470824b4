"""From the journal to OTLP backends, with receipts."""
