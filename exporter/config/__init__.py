"""Every option, its values, and the configuration that a command runs with."""
