"""The program: one module a command, and what they show."""
