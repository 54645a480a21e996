"""Finds text that repeats itself, token by token, in memory that does not depend on the text's length."""

from collections import deque

from metal_gen.take_back import Recent

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
        self._before: Recent[tuple[list[int], list[int]]] = Recent()

    def add(self, token: int) -> bool:
        """Record the next token. Return whether the text repeats itself now."""
        self._before.keep(self._state)
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
        """Forget all tokens. This is an addition too, which can be taken back."""
        self._before.keep(self._state)
        self._recent.clear()
        self._equal = [0] * (LONGEST_BLOCK + 1)

    def take_back(self, count: int) -> None:
        """Take back the last tokens."""
        recent, self._equal = self._before.take_back(count, self._state)
        self._recent = deque(recent, maxlen=LONGEST_BLOCK)

    @property
    def _state(self) -> tuple[list[int], list[int]]:
        return list(self._recent), list(self._equal)
