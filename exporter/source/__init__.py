"""Reads lines: from a growing log across its rotations, or from finished logs."""
