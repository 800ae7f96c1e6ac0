"""See ARCHITECTURE.md, part `service`."""
