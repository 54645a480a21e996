"""Finds text that repeats itself, token by token, in memory that does not depend on the text's length."""

from collections import deque

LONGEST_BLOCK = 128
FEWEST_TIMES = 4
# Shorter repetitions are rules of tables, digits and blank lines.
FEWEST_TOKENS = 64


class LoopDetector:
    """Detects a block of up to `LONGEST_BLOCK` tokens that occurs `FEWEST_TIMES` times in a row.

    All repetitions together have at least `FEWEST_TOKENS` tokens.
    """

    def __init__(self) -> None:
        self._recent: deque[int] = deque(maxlen=LONGEST_BLOCK)
        # For each block length: the number of consecutive tokens that equal the one a block earlier.
        self._equal = [0] * (LONGEST_BLOCK + 1)

    def add(self, token: int) -> bool:
        """Record the next token. Return whether the text repeats itself now."""
        found = False
        equal = self._equal
        for length, other in enumerate(reversed(self._recent), 1):
            if token != other:
                equal[length] = 0
                continue
            equal[length] += 1
            repeated = equal[length] + length
            if repeated >= FEWEST_TIMES * length and repeated >= FEWEST_TOKENS:
                found = True
        self._recent.append(token)
        return found

    def clear(self) -> None:
        """Forget all tokens."""
        self.__init__()  # type: ignore[misc]
