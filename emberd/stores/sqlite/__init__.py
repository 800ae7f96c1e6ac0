"""Stores in SQLite files, whose swap is one transaction."""
