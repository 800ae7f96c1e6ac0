"""Collections of Qdrant, in a folder or on a server."""
