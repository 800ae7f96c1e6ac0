"""The identity of a vector space: what makes one, and whether two are the same."""
