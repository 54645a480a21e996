"""How many guesses to make: as many as bring the most tokens in a second, perhaps none.

For each kind of guesses and each depth (number of guesses), running means say how long a pass takes. For each
place, they say how often a guess is right if those before it were. Both together give tokens in a second. The
best depth is used; now and then a neighboring one is tried, less often the more often that was in vain.

The first pass at a depth takes as long as several steps, because a function is compiled for its number of
rows. So there are few depths, such a pass has to be worth that, and it is seldom made to try a depth.

Source: the choice of depths in ollama (`x/mlxrunner/speculate_depth.go`).
"""

from metal_gen.speculation.kind_statistics import FEWEST_BETWEEN, KindStatistics, Mean

# Usual most guesses, by kind. Of those of a model, more are seldom all right.
LOOKUP_GUESSES = 32
USUAL = {"lookup 8": LOOKUP_GUESSES, "lookup 4": 8, "lookup resumed": 8, "mtp": 4, "draft": 4}
PLAIN = ""
# Depths to choose from, beside none and the most. Guesses of a model take time each; those of a lookup take
# none, and a pass of a few rows takes some GPUs as long as one of nine.
MODEL_DEPTHS, LOOKUP_DEPTHS = (1, 2, 3, 4, 8, 16, 32), (3, 8, 32)
# Share of guesses that are right before any have been made.
EXPECTED = {"lookup 8": 0.8, "lookup 4": 0.5, "lookup resumed": 0.5, "mtp": 0.7, "draft": 0.7}
# Time of compiling a pass relative to a plain step, and passes within which that must pay: a model guesses at
# every token, a lookup now and then.
COMPILE_COST, LOOKUP_PASSES, MODEL_PASSES = 5.0, 8, 64
# Tokens after which a lookup has found guesses before anything is compiled for it. Most finds end at once.
FEWEST_FOUND = 5
# Passes after something was compiled, before something is compiled to try another depth. For a lookup, a text
# must have had twice as many: a try takes more than 2 % of a shorter one, and most texts repeat little.
PASSES_BETWEEN_COMPILED = 200
# Passes at a depth that do not count, because they may compile something, or fill a cache.
NOT_COUNTED = 2
# Choices in turn for a depth that is tried, until its time is known.
MOST_TRIES = 8
# Choices for which the best depth stands, unless guesses are made: plain steps change little.
KEPT_CHOICES = 8
# Most choices between tries of a neighboring depth.
MOST_BETWEEN = 768
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
        """Choose how many guesses of a kind to make now. Each call counts as a choice."""
        return self.most_of(kind)

    def wants(self, kind: str) -> bool:
        """Make the next choice for a kind in advance; return whether it is to make guesses."""
        return self.choose(kind) > 0

    def choose_ahead(self, kind: str) -> int:
        """Make the next choice for a kind in advance, and return it; it may be none."""
        return self.choose(kind)

    def cut(self, kind: str, depth: int, room: int) -> int:
        """Return how many guesses of a kind to make where a depth was chosen, and so many fit the text."""
        return min(depth, room)

    def filled(self, kind: str, count: int) -> int:
        """Return up to how many guesses to fill a pass up that has fewer than were chosen."""
        return count

    def note(self, kind: str, count: int, accepted: int, seconds: float | None, filled: int = 0) -> None:
        """Record a pass.

        Args:
            kind: What the guesses came from; `PLAIN` for a plain step.
            count: Number of guesses.
            accepted: How many of them were right.
            seconds: Time of the pass; None if it does not count.
            filled: Number of guesses that take as long, if the pass was filled up.
        """

    def end_text(self) -> None:
        """Note that a text has ended."""


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
        # Passes whose time was known, by source and depth; each depth that has been used has an entry.
        self._timed: dict[tuple[str, int], int] = {}
        self._plain_timed = 0
        # Passes of this text, and passes since something was compiled.
        self._passes = self._since_compiled = 0
        # Those of `kinds` whose source's costs they share.
        self._known: dict[str, KindStatistics] = {}
        # Costs of passes by source.
        self._costs: dict[str, dict[int, Mean]] = {}
        # Choices that were made ahead.
        self._chosen: dict[str, int] = {}

    def end_text(self) -> None:
        """Count anew for the next text, so that nothing is compiled in vain in a short one."""
        self._passes = 0
        self._chosen.clear()
        for known in self.kinds.values():
            known.found = 0

    def choose(self, kind: str) -> int:
        """Return the best depth, or a neighbor of it that is due to be tried."""
        depth = self._chosen.pop(kind) if kind in self._chosen else self._choice(kind)
        self._of(kind).chosen = depth
        return depth

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

    def cut(self, kind: str, depth: int, room: int) -> int:
        """See `Depths.cut`. Passes of a lookup are filled up; for others, nothing is compiled this late."""
        if depth <= room or is_lookup(kind):
            return min(depth, room)
        return max((used for used in self._used(kind) if used <= room), default=0)

    def filled(self, kind: str, count: int) -> int:
        """See `Depths.filled`."""
        chosen = self._of(kind).chosen
        if not 0 < count < chosen:
            return count
        return min((used for used in self._used(kind) if used >= count), default=chosen)

    def _used(self, kind: str) -> list[int]:
        """Return the depths at which passes have been made, so that nothing has to be compiled."""
        return [depth for depth in self._depths(kind) if (source_of(kind), depth) in self._timed]

    def _choice(self, kind: str) -> int:
        known = self._of(kind)
        if self.plain.count < NOT_COUNTED:
            return 0
        known.choices += 1
        known.found += 1
        if is_lookup(kind) and known.found < FEWEST_FOUND and not self._used(kind):
            return 0
        if known.choices <= MOST_TRIES and known.tried in self._used(kind) and known.tried not in known.costs:
            return known.tried  # Its time is not known yet.
        if known.stands and known.choices < known.between:
            known.stands -= 1
            return known.best
        depths = self._depths(kind)
        speeds = self._speeds(kind, depths)
        known.best, known.stands = max(depths, key=lambda depth: speeds[depth]), KEPT_CHOICES
        if known.choices < known.between or len(depths) == 1:
            return known.best
        known.choices = 0
        if (tried := self._worth_a_try(kind, depths)) is None:
            return known.best
        known.tried = tried
        # In vain until a later choice says otherwise.
        known.between = min(2 * known.between, MOST_BETWEEN)
        return tried

    def _worth_a_try(self, kind: str, depths: list[int]) -> int | None:
        """Return the neighbor of the best depth that may be the best; None if there is none to try now."""
        best = self._of(kind).best
        place = depths.index(best)
        # Plain steps are near to all depths.
        others = depths[place - 1 : place] + depths[place + 1 : place + 2] if place else depths[1:]
        speeds = self._speeds(kind, [best, *others], is_hopeful=True)
        used = [0, *self._used(kind)]
        may_compile = self._since_compiled >= PASSES_BETWEEN_COMPILED and (
            not is_lookup(kind) or self._passes >= 2 * PASSES_BETWEEN_COMPILED
        )
        worth = [depth for depth in others if depth in used or (may_compile and speeds[depth] > speeds[best])]
        return max(worth, key=lambda depth: speeds[depth], default=None)

    def note(self, kind: str, count: int, accepted: int, seconds: float | None, filled: int = 0) -> None:
        """See `Depths.note`."""
        if kind != PLAIN and count == 0:
            return
        self.unsaved += 1
        self._passes += 1
        self._since_compiled += 1
        if kind == PLAIN:
            self._plain_timed += seconds is not None
            if seconds is not None and self._plain_timed > NOT_COUNTED:
                self.plain.add_time(seconds)
            return
        known, depth = self._of(kind), max(count, filled)
        known.add(count, accepted)
        for each in self.kinds.values():
            each.stands = 0
        key = source_of(kind), depth
        if key not in self._timed:
            self._since_compiled = 0
        timed = self._timed[key] = self._timed.get(key, 0) + (seconds is not None)
        if seconds is None or timed <= NOT_COUNTED:
            return
        known.costs.setdefault(depth, Mean()).add_time(seconds)
        self._note_try(kind, depth)

    def _note_try(self, kind: str, depth: int) -> None:
        """Try more often again if the last try has found a better depth."""
        known = self._of(kind)
        if depth == known.tried:
            speeds = self._speeds(kind, [depth, known.best])
            if speeds[depth] > speeds[known.best]:
                known.between = FEWEST_BETWEEN
            known.tried = None

    def _of(self, kind: str) -> KindStatistics:
        if (known := self._known.get(kind)) is not None:
            return known
        known = self._known[kind] = self.kinds.setdefault(kind, KindStatistics())
        # The same functions compute all guesses of a source.
        shared = self._costs.setdefault(source_of(kind), known.costs)
        if shared is not known.costs:
            for depth, mean in known.costs.items():
                shared.setdefault(depth, mean)
            known.costs = shared
        return known

    def _depths(self, kind: str) -> list[int]:
        """Return the depths to choose from."""
        most = self.most_of(kind)
        # Two that are close to each other are not worth two functions.
        usual = [depth for depth in LOOKUP_DEPTHS if 2 * depth <= most] if is_lookup(kind) else MODEL_DEPTHS
        return [0, *(depth for depth in usual if depth < most), most]

    def _speeds(self, kind: str, depths: list[int], *, is_hopeful: bool = False) -> dict[int, float]:
        """Return expected tokens in a second by depth. Plain steps are favored a little.

        Args:
            kind: Kind of the guesses.
            depths: Depths to compare.
            is_hopeful: Whether nothing has to be compiled, and guesses that are left out save their share.
        """
        known, plain = self._of(kind), self.plain.value
        tokens = known.expected_tokens(max(depths), EXPECTED[kind])
        used = depths if is_hopeful else self._used(kind)
        compiling = COMPILE_COST * plain / (LOOKUP_PASSES if is_lookup(kind) else MODEL_PASSES)
        speeds = {0: LEAST_GAIN / plain}
        for depth in depths:
            if depth:
                cost = known.cost(depth, plain, is_hopeful=is_hopeful)
                speeds[depth] = tokens[depth] / (cost if depth in used else cost + compiling)
        return speeds


def source_of(kind: str) -> str:
    """Return the source of a kind of guesses. Its passes share functions."""
    return kind.partition(" ")[0]


def is_lookup(kind: str) -> bool:
    """Return whether guesses of a kind come from a lookup."""
    return source_of(kind) == "lookup"
