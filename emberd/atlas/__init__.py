"""Maps of vector stores: their rows in two dimensions, and which model made which."""
