"""Where a model is: found on this machine, fetched from its sources, and what its folder says."""
