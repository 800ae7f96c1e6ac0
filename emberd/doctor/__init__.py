"""What keeps emberd from working on this machine: checks that run in parallel, and their fixes."""
