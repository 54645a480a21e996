"""How many guesses to make."""


class Depths:
    """Chooses the number of guesses.

    Args:
        most: Most guesses of each kind.
    """

    def __init__(self, most: dict[str, int]) -> None:
        self.most = most

    def choose(self, kind: str) -> int:
        """Return how many guesses of a kind to make now."""
        return self.most[kind]
