"""A seed to use where none is given."""

import secrets

SEED_BITS = 32


def choose_seed() -> int:
    """A seed to use, and to report, when none is given."""
    return secrets.randbits(SEED_BITS)
