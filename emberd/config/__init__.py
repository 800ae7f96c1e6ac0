"""See ARCHITECTURE.md, part `config`."""
