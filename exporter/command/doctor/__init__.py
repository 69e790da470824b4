"""`doctor`: why nothing arrives, and what to do about it."""
