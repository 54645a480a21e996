"""Finds stop strings in a text that arrives in pieces."""

from bisect import bisect_left
from collections.abc import Sequence

from metal_gen.take_back import Recent


class StopMatcher:
    """Passes a text on up to the first stop string.

    Text that could still become a stop string is held back. The result does not depend on how the text is cut
    into pieces: the stop string that is complete first counts, and of several, the one that began first.

    Args:
        stops: Stop strings, none of them empty.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(sorted(stops, key=len, reverse=True))
        self._in_order = sorted(stops)
        self._held = ""
        self._recent: Recent[str] = Recent()

    def feed(self, text: str) -> tuple[str, str | None]:
        """Take the next piece.

        Returns:
            Text that is certain to come before any stop string, and the stop string that ends the text.
        """
        self._recent.keep(self._held)
        if not self._stops:
            return text, None
        released = ""
        for character in text:
            self._held += character
            if self._held.endswith(self._stops):
                stop = next(stop for stop in self._stops if self._held.endswith(stop))
                released += self._held.removesuffix(stop)
                self._held = ""
                return released, stop
            keep = self._could_begin()
            released += self._held[: len(self._held) - keep]
            self._held = self._held[len(self._held) - keep :]
        return released, None

    def take_back(self, count: int) -> None:
        """Take back the last pieces."""
        self._held = self._recent.take_back(count, self._held)

    def finish(self) -> str:
        """Return the held-back text when no more text comes."""
        held, self._held = self._held, ""
        return held

    def _could_begin(self) -> int:
        """Return the length of the longest end of the held text that begins a stop string."""
        for place in range(len(self._held)):
            end = self._held[place:]
            # In sorted order, strings that begin with `end` follow right after the place of `end` itself.
            at = bisect_left(self._in_order, end)
            if at < len(self._in_order) and self._in_order[at].startswith(end):
                return len(end)
        return 0
