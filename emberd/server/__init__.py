"""The process that listens: how it starts and ends, its sockets, and its connections."""
