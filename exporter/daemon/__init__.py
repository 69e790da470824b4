"""The long-running service: its threads, reload, systemd."""
