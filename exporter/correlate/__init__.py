"""Which task belongs to which request, and how sure that is."""
