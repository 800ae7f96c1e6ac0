"""The files of models: whether they are here, where they come from, and what they say."""
