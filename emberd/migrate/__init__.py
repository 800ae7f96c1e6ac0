"""Vector stores: whose vectors they hold, and moving them from one model to another."""
