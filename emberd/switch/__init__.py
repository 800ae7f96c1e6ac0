"""Make another model the default: what that means for stored vectors, and doing it all at once."""
