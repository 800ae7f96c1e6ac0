"""See ARCHITECTURE.md, part `bench`."""
