"""Chooses a random seed."""

import secrets

SEED_BITS = 32


def choose_seed() -> int:
    """Return a random seed, for a run without a given one."""
    return secrets.randbits(SEED_BITS)
