"""Where lines come from: a growing log over its rotations, or finished logs."""
