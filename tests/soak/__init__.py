"""A server under mixed load and faults for as long as one likes; every vector is compared."""
