"""How many guesses to make."""

LOOKUP_GUESSES = 32
# Usual numbers of guesses, by kind.
USUAL = {"lookup 8": LOOKUP_GUESSES, "lookup 4": 8, "mtp": 4, "draft": 4}


class Depths:
    """Chooses the number of guesses.

    Args:
        most: Most guesses in a pass.
        wanted: Most guesses of any kind, as set; None for the usual numbers.
    """

    def __init__(self, most: int, wanted: int | None = None) -> None:
        self._most = most
        self._wanted = wanted

    def choose(self, kind: str) -> int:
        """Return how many guesses of a kind to make now."""
        return min(self._most, self._wanted or USUAL[kind])
