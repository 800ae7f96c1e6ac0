"""What keeps emberd from working on this machine: checks side by side, each with its fix."""
