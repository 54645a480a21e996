"""The parts of `scripts/make_random_checkpoint.py`."""
