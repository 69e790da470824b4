"""The state on disk: one batch of lines is one transaction."""
