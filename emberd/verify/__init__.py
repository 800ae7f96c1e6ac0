"""Checks one model from its files to its vectors, and says what to do about what it finds."""
