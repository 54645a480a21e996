"""The memory that a run takes, and the size of its cache."""
