"""What people ask of the history: rows of the store as tasks that a page, a terminal or a program can show."""
