"""See ARCHITECTURE.md, part `doctor`."""
