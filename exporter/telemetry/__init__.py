"""Builds spans, log records and history rows from events."""
