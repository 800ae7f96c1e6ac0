"""Kinds of vector store: their contract (`base.py`), the way in, and those that come along."""
