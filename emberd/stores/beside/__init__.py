"""For engines without transactions: a collection beside the old one takes its name."""
