"""Parses lines into records: dialects, forged lines, time zones, redaction."""
