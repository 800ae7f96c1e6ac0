"""emberd: a local embedding server. Many models, one registry, memory really given back."""

__version__ = "0.1.0"
