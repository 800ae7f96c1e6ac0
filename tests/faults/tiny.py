"""A model of yours in a folder, small enough to be replaced and damaged in a test."""

from pathlib import Path

TINY = Path(__file__).parents[1] / "reference" / "tiny" / "bert"
CONFIG = """
models:
  tiny:
    sources: [{{path: {folder}}}]
    dimensions: 64
    pooling: mean
"""
