"""Ask a server: requests are built and answers read in one place; two clients send them."""
