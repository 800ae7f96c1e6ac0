"""Vectors kept on disk, so that a text that was embedded before need not be computed again."""
