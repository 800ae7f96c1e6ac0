"""The sizes of each architecture that emberd implements itself, and the names of its tensors."""
