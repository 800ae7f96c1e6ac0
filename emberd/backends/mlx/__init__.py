"""See ARCHITECTURE.md, part `backends.mlx`."""
