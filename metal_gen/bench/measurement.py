"""A figure that is taken several times: what it is, its values, and how two of them compare."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

METAL_GEN, MLX_LM = "metal-gen", "mlx-lm"
# What a figure may depend on, in the order in which it is named.
PARAMETERS = ("prompt_tokens", "depth", "capacity", "length")


class Unit(StrEnum):
    """What the values count."""

    SECONDS = "s"
    MILLISECONDS = "ms"
    MICROSECONDS = "us"
    BYTES = "bytes"
    BYTES_PER_SECOND = "bytes/s"
    TOKENS_PER_SECOND = "tok/s"
    COUNT = "count"
    SHARE = "share"
    RATIO = "ratio"

    @property
    def more_is_better(self) -> bool:
        """Speeds should be high; times, bytes, counts and shares low."""
        return self in (Unit.BYTES_PER_SECOND, Unit.TOKENS_PER_SECOND, Unit.RATIO)


@dataclass(frozen=True)
class Spread:
    """Several values in short.

    Attributes:
        median: Of an even number of values, the mean of the two in the middle.
        minimum: The least.
        maximum: The most.
        n: How many there are.
    """

    median: float
    minimum: float
    maximum: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Summarise at least one value."""
        return cls(statistics.median(values), min(values), max(values), len(values))


@dataclass(frozen=True)
class Measurement:
    """A figure and the values it has had so far.

    Attributes:
        section: The part of the benchmark that it belongs to.
        name: Ends in its unit, as in `ttft_s`.
        unit: Of the values.
        program: Who was measured.
        parameters: What it depends on, such as `{"depth": 512}`; keys are of `PARAMETERS`.
        ceiling: The most that the hardware allows, in the same unit, where that is known.
        values: One per repeat, in the order in which they were taken; warm-up is not among them.
    """

    section: str
    name: str
    unit: Unit
    program: str = METAL_GEN
    parameters: Mapping[str, int] = field(default_factory=dict)
    ceiling: float | None = None
    values: list[float] = field(default_factory=list)

    @property
    def spread(self) -> Spread:
        """Median, minimum and maximum; there must be a value."""
        return Spread.of(self.values)

    @property
    def ceiling_share(self) -> float | None:
        """The part of the ceiling that the median reaches."""
        return self.spread.median / self.ceiling if self.ceiling and self.values else None

    def same_figure(self, other: "Measurement") -> bool:
        """Whether the other one is this figure, of whatever program."""
        mine = (self.section, self.name, dict(self.parameters))
        return mine == (other.section, other.name, dict(other.parameters))


def advantage(ours: Measurement, theirs: Measurement) -> Spread | None:
    """How many times better one is than the other; above 1 the first is better.

    Speeds are divided ours by theirs, everything else theirs by ours.

    Returns:
        The ratio of the medians, and the least and the greatest ratio of any turn; None where no
        turn has a value of both.
    """
    turns = min(len(ours.values), len(theirs.values))
    above, below = ours.values[:turns], theirs.values[:turns]
    if not ours.unit.more_is_better:
        above, below = below, above
    if not turns or min(below) <= 0:
        return None
    ratios = [first / second for first, second in zip(above, below, strict=True)]
    middle = statistics.median(above) / statistics.median(below)
    return Spread(middle, min(ratios), max(ratios), turns)


@dataclass(frozen=True)
class Trial:
    """Something that is run again and again, in turns with others.

    Attributes:
        measurements: What a run gives, in order.
        run: Returns one value for each of them.
    """

    measurements: tuple[Measurement, ...]
    run: Callable[[], Sequence[float]]


TrialProgress = Callable[[int, int], None]


def alternate(
    trials: Sequence[Trial], *, repeats: int, warmup: int, on_progress: TrialProgress | None = None
) -> None:
    """Run the trials in turns, so that what disturbs the machine disturbs all of them alike.

    Args:
        trials: Run once each, in their order, per round.
        repeats: Rounds whose values are kept.
        warmup: Rounds before them whose values are not.
        on_progress: Called with the runs done and the runs in all after each run.
    """
    total, done = (warmup + repeats) * len(trials), 0
    for turn in range(warmup + repeats):
        for trial in trials:
            values = trial.run()
            if turn >= warmup:
                for measurement, value in zip(trial.measurements, values, strict=True):
                    measurement.values.append(value)
            done += 1
            if on_progress is not None:
                on_progress(done, total)
