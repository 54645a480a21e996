"""One contract for all that follows a text: what was added last can be taken back.

`take_back(count)` undoes the last `count` additions. The object then stands exactly where it stood before
them, as if they had never been made. If it cannot go back so far, it raises ValueError and is unchanged. How
far it can go is:

- keys and values, histories: any number of tokens, because later ones overwrite them;
- states of linear attention: to the moments that `HybridCache.reachable` names;
- everything else: `MOST_TAKEN_BACK` additions, whose states are kept in fixed memory.
"""

from collections import deque
from typing import Generic, TypeVar

# The most guesses of a pass.
MOST_TAKEN_BACK = 64

State = TypeVar("State")


class Recent(Generic[State]):
    """The states before the last few additions. States must not be changed after they are kept."""

    def __init__(self) -> None:
        self._states: deque[State] = deque(maxlen=MOST_TAKEN_BACK)

    def __len__(self) -> int:
        """Number of additions that can be taken back."""
        return len(self._states)

    def keep(self, state: State) -> None:
        """Keep the state before the next addition."""
        self._states.append(state)

    def take_back(self, count: int, now: State) -> State:
        """Return the state before the last `count` additions; `now` if there are none to undo.

        Raises:
            ValueError: So many are not kept.
        """
        if not 0 <= count <= len(self._states):
            raise ValueError(f"cannot take back {count} of {len(self._states)} additions")
        for _ in range(count):
            now = self._states.pop()
        return now
