"""An entry for the registry, proposed from what a model's own files say; people accept it."""
