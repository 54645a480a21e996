"""The order in which outcomes are written: as rows finish, or in input order."""

from collections import deque
from collections.abc import Callable

from metal_gen.batch.executor import Outcome

Put = Callable[[Outcome], None]


class AnyOrder:
    """Passes outcomes on as they arrive.

    Attributes:
        waiting: Number of outcomes held back: none.
    """

    waiting = 0

    def __init__(self, put: Put) -> None:
        self._put = put

    def expect(self, number: int) -> None:
        """Note that a row has begun."""

    def put(self, number: int, outcome: Outcome) -> None:
        """Pass on the outcome of a row."""
        self._put(outcome)


class RowOrder:
    """Passes outcomes on in the order in which their rows began; early ones wait."""

    def __init__(self, put: Put) -> None:
        self._put = put
        self._expected: deque[int] = deque()
        self._early: dict[int, Outcome] = {}

    @property
    def waiting(self) -> int:
        """Number of outcomes held back."""
        return len(self._early)

    def expect(self, number: int) -> None:
        """Note that a row has begun."""
        self._expected.append(number)

    def put(self, number: int, outcome: Outcome) -> None:
        """Pass on the outcome of a row, and those that waited for it."""
        self._early[number] = outcome
        while self._expected and self._expected[0] in self._early:
            self._put(self._early.pop(self._expected.popleft()))
