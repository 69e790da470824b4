"""From bytes to records: dialects, forgeries, time zones, secrets."""
