"""Clients of a running server: requests and answers have one home, and two clients send them."""
