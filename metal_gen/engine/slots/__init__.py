"""Many texts at once, each in a slot of one cache."""
