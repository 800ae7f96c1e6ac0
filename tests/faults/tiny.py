"""A small model in a folder of its own, easy to replace and damage in a test."""

from pathlib import Path

TINY = Path(__file__).parents[1] / "reference" / "tiny" / "bert"
CONFIG = """
models:
  tiny:
    sources: [{{path: {folder}}}]
    dimensions: 64
    pooling: mean
"""
