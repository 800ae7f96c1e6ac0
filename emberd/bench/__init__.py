"""Measures how fast a running server is, from outside, in about a minute."""
