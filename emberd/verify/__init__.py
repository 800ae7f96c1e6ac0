"""See ARCHITECTURE.md, part `verify`."""
