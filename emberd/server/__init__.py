"""The process that listens: sockets, connections, and word to the service manager."""
