"""Ask a running server: found as the command line finds it, or at an address that is given."""
