"""Every setting, where it comes from, and how a running server takes a changed file."""
