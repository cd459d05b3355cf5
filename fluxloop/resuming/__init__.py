"""An experiment that was begun before: where it is, whether it is still the same, and what of it is left."""
