"""How many guesses to make: as many as bring the most tokens in a second, perhaps none.

For each kind of guesses and each depth (number of guesses), running means say how long a pass takes. For each
place, they say how often a guess is right if those before it were. Both together give tokens in a second. The
best depth is used; now and then a neighboring one is tried, less often the more often that was in vain.

Source: the choice of depths in ollama (`x/mlxrunner/speculate_depth.go`).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from operator import mul

# Usual most guesses, by kind.
LOOKUP_GUESSES = 32
USUAL = {"lookup 8": LOOKUP_GUESSES, "lookup 4": 8, "lookup resumed": 8, "mtp": 4, "draft": 4}
PLAIN = ""
# Share of guesses that are right, and its weight as a number of guesses, before any have been made.
EXPECTED = {"lookup 8": 0.8, "lookup 4": 0.5, "lookup resumed": 0.5, "mtp": 0.7, "draft": 0.7}
EXPECTED_WEIGHT = 2.0
# Time of a pass relative to a plain step before it is known: of any guesses, and what each of them adds.
FIRST_COST, EXPECTED_COST = 1.4, 0.03
# Weight of a new number in a running mean, once there are as many.
NEW_SHARE = 1 / 24
# Passes at a depth that do not count, because they may compile something, or fill a cache.
NOT_COUNTED = 2
# A longer time, relative to the mean, is mostly that of something else, such as another program.
OUTLIER = 3.0
# Choices for which the best depth stands, unless guesses are made: plain steps change little.
KEPT_CHOICES = 8
# Passes between tries of a neighboring depth.
FEWEST_BETWEEN, MOST_BETWEEN = 24, 768
# A depth must be better than plain steps by this factor.
LEAST_GAIN = 1.03


class Depths:
    """Fixed depths: the most that is allowed.

    Args:
        most: Most guesses in a pass.
        wanted: Most guesses of any kind, as set; None for the usual numbers.

    Attributes:
        most: Most guesses in a pass.
    """

    def __init__(self, most: int, wanted: int | None = None) -> None:
        self.most = most
        self._wanted = wanted

    def most_of(self, kind: str) -> int:
        """Return the most guesses of a kind."""
        return min(self.most, self._wanted or USUAL[kind])

    def choose(self, kind: str) -> int:
        """Return how many guesses of a kind to make now."""
        return self.most_of(kind)

    def wants(self, kind: str) -> bool:
        """Return whether the next choice for a kind will be to make guesses."""
        return self.choose(kind) > 0

    def choose_ahead(self, kind: str) -> int:
        """Return what the next choice for a kind will be, which may be none."""
        return self.choose(kind)

    def note(self, kind: str, count: int, accepted: int, seconds: float | None) -> None:
        """Record a pass.

        Args:
            kind: What the guesses came from; `PLAIN` for a plain step.
            count: Number of guesses.
            accepted: How many of them were right.
            seconds: Time of the pass; None if it does not count.
        """

    def end_text(self) -> None:
        """Note that a text has ended."""


@dataclass
class Mean:
    """A running mean; early numbers count alike."""

    value: float = 0.0
    count: float = 0.0

    def add(self, number: float) -> None:
        """Add a number."""
        self.count += 1
        self.value += (number - self.value) * max(1 / self.count, NEW_SHARE)


@dataclass
class KindStatistics:
    """What is known of a kind of guesses.

    Attributes:
        costs: Seconds of a pass, by number of guesses; all kinds of a source share them.
        right: For each place, how often a guess is right if those before it were.
        passes: Number of choices since the last try of another depth.
        between: Choices until the next try.
        best: Best depth at the last choice that compared them.
        stands: Choices for which it stands.
        tried: Depth that is being tried; None if none is.
    """

    costs: dict[int, Mean] = field(default_factory=dict)
    right: list[Mean] = field(default_factory=list)
    passes: int = 0
    between: int = FEWEST_BETWEEN
    best: int = 0
    stands: int = 0
    tried: int | None = None

    def add(self, count: int, accepted: int) -> None:
        """Add the guesses of a pass."""
        while len(self.right) < count:
            self.right.append(Mean())
        for place in range(min(accepted + 1, count)):
            self.right[place].add(float(place < accepted))

    def expected_tokens(self, most: int, prior: float) -> list[float]:
        """Return the expected tokens of a pass with 0 to `most` guesses."""
        shares = []
        for place in range(most):
            mean = self.right[place] if place < len(self.right) else Mean()
            weight = min(mean.count, 1 / NEW_SHARE)
            prior = (EXPECTED_WEIGHT * prior + weight * mean.value) / (EXPECTED_WEIGHT + weight)
            shares.append(prior)
        return list(accumulate(accumulate(shares, mul), initial=1.0))


class LearnedDepths(Depths):
    """Depths that adapt to what passes cost and how many guesses are right.

    Arguments are those of `Depths`.

    Attributes:
        plain: Seconds of a plain step.
        kinds: What is known of each kind of guesses.
        unsaved: Number of passes recorded since the last reset.
    """

    def __init__(self, most: int, wanted: int | None = None) -> None:
        super().__init__(most, wanted)
        self.plain = Mean()
        self.kinds: dict[str, KindStatistics] = {}
        self.unsaved = 0
        self._seen: dict[tuple[str, int], int] = {}
        # Those of `kinds` whose source's costs they share.
        self._known: dict[str, KindStatistics] = {}
        # Costs of passes by source.
        self._costs: dict[str, dict[int, Mean]] = {}
        # Choices that were made ahead.
        self._chosen: dict[str, int] = {}

    def choose(self, kind: str) -> int:
        """Return the best depth, or a neighbor of it that is due to be tried."""
        return self._chosen.pop(kind) if kind in self._chosen else self._choice(kind)

    def wants(self, kind: str) -> bool:
        """See `Depths.wants`."""
        depth = self.choose(kind)
        if depth > 0:
            self._chosen[kind] = depth
        return depth > 0

    def choose_ahead(self, kind: str) -> int:
        """See `Depths.choose_ahead`."""
        depth = self._chosen[kind] = self.choose(kind)
        return depth

    def _choice(self, kind: str) -> int:
        known = self._of(kind)
        if self.plain.count < NOT_COUNTED:
            return 0
        known.passes += 1
        if known.stands and known.passes < known.between:
            known.stands -= 1
            return known.best
        depths = list(self._depths(kind))
        speeds = self._speeds(kind, depths)
        known.best, known.stands = max(depths, key=lambda depth: speeds[depth]), KEPT_CHOICES
        if known.passes < known.between or len(depths) == 1:
            return known.best
        known.passes = 0
        place = depths.index(known.best)
        others = depths[max(place - 1, 0) : place] + depths[place + 1 : place + 2]
        known.tried = max(others, key=lambda depth: speeds[depth])
        # In vain until a later choice says otherwise.
        known.between = min(2 * known.between, MOST_BETWEEN)
        return known.tried

    def note(self, kind: str, count: int, accepted: int, seconds: float | None) -> None:
        """See `Depths.note`."""
        if kind != PLAIN and count == 0:
            return
        self.unsaved += 1
        if kind != PLAIN:
            self._of(kind).add(count, accepted)
            for known in self.kinds.values():
                known.stands = 0
        if seconds is None:
            return
        seen = self._seen[kind, count] = self._seen.get((kind, count), 0) + 1
        if seen <= NOT_COUNTED:
            return
        mean = self.plain if kind == PLAIN else self._of(kind).costs.setdefault(count, Mean())
        mean.add(min(seconds, OUTLIER * mean.value) if mean.count >= NOT_COUNTED else seconds)
        if kind != PLAIN:
            self._note_try(kind, count)

    def _note_try(self, kind: str, count: int) -> None:
        """Try more often again if the last try has found a better depth."""
        known = self._of(kind)
        if count == known.tried:
            speeds = self._speeds(kind, [count, known.best])
            if speeds[count] > speeds[known.best]:
                known.between = FEWEST_BETWEEN
            known.tried = None

    def _of(self, kind: str) -> KindStatistics:
        if (known := self._known.get(kind)) is not None:
            return known
        known = self._known[kind] = self.kinds.setdefault(kind, KindStatistics())
        # The same functions compute all guesses of a source.
        shared = self._costs.setdefault(kind.partition(" ")[0], known.costs)
        if shared is not known.costs:
            for depth, mean in known.costs.items():
                shared.setdefault(depth, mean)
            known.costs = shared
        return known

    def _depths(self, kind: str) -> Iterator[int]:
        """Yield the depths to choose from: all small ones, then powers of two."""
        most = self.most_of(kind)
        yield from range(min(most, 4) + 1)
        depth = 8
        while depth < most:
            yield depth
            depth *= 2
        if most > 4:
            yield most

    def _speeds(self, kind: str, depths: list[int]) -> dict[int, float]:
        """Return expected tokens in a second by depth. Plain steps are favoured a little."""
        known = self._of(kind)
        tokens = known.expected_tokens(max(depths), EXPECTED[kind])
        speeds = {depth: tokens[depth] / self._cost(known, depth) for depth in depths if depth}
        return {**speeds, 0: LEAST_GAIN / self.plain.value} if 0 in depths else speeds

    def _cost(self, known: KindStatistics, depth: int) -> float:
        """Return the seconds of a pass, guessed from the nearest depth that is known if need be."""
        if depth in known.costs:
            return known.costs[depth].value
        nearest = min(known.costs, key=lambda each: abs(each - depth), default=None)
        if nearest is None:
            return (FIRST_COST + EXPECTED_COST * depth) * self.plain.value
        cost = known.costs[nearest].value + EXPECTED_COST * (depth - nearest) * self.plain.value
        return max(cost, self.plain.value)
