"""What is known of a kind of guesses: what passes over them cost, and how often they are right."""

from dataclasses import dataclass, field
from itertools import accumulate
from operator import mul

# Weight of the share of right guesses that is expected before any have been made, as a number of guesses.
EXPECTED_WEIGHT = 2.0
# Time of a pass relative to a plain step before it is known: of any guesses, and what each of them adds.
FIRST_COST, EXPECTED_COST = 1.4, 0.03
# Weight of a new number in a running mean, once there are as many.
NEW_SHARE = 1 / 24
# A longer time, relative to the mean of at least so many, is mostly that of something else, such as another
# program.
OUTLIER, FEWEST_TIMES = 3.0, 2
# Choices between tries of a neighboring depth.
FEWEST_BETWEEN = 24


@dataclass
class Mean:
    """A running mean; early numbers count alike."""

    value: float = 0.0
    count: float = 0.0

    def add(self, number: float) -> None:
        """Add a number."""
        self.count += 1
        self.value += (number - self.value) * max(1 / self.count, NEW_SHARE)

    def add_time(self, seconds: float) -> None:
        """Add a time, or what is usual at most."""
        usual = OUTLIER * self.value
        self.add(usual if seconds > usual and self.count >= FEWEST_TIMES else seconds)


@dataclass
class KindStatistics:
    """What is known of a kind of guesses.

    Attributes:
        costs: Seconds of a pass, by number of guesses; all kinds of a source share them.
        right: For each place, how often a guess is right if those before it were.
        choices: Number of choices since the last try of another depth.
        between: Choices until the next try.
        best: Best depth at the last choice that compared them.
        stands: Choices for which it stands.
        tried: Depth that is being tried; None if none is.
        chosen: Depth of the last choice.
        found: Number of choices in this text.
    """

    costs: dict[int, Mean] = field(default_factory=dict)
    right: list[Mean] = field(default_factory=list)
    choices: int = 0
    between: int = FEWEST_BETWEEN
    best: int = 0
    stands: int = 0
    tried: int | None = None
    chosen: int = 0
    found: int = 0

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

    def cost(self, depth: int, plain: float, *, is_hopeful: bool = False) -> float:
        """Return the seconds of a pass, guessed from the nearest depth that is known if need be.

        Args:
            depth: Number of guesses, at least 1.
            plain: Seconds of a plain step.
            is_hopeful: Whether fewer guesses are expected to save their share of the time.
        """
        if depth in self.costs:
            return self.costs[depth].value
        nearest = min(self.costs, key=lambda each: abs(each - depth), default=None)
        if nearest is None:
            return (FIRST_COST + EXPECTED_COST * depth) * plain
        known = self.costs[nearest].value
        if is_hopeful and depth < nearest:
            return plain + max(known - plain, 0) * depth / nearest
        return max(known + EXPECTED_COST * (depth - nearest) * plain, plain)
