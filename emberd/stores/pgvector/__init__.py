"""Stores in Postgres with the extension `vector`."""
