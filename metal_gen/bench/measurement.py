"""A figure that is measured several times: its definition, its values, and the comparison of two."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

METAL_GEN, MLX_LM = "metal-gen", "mlx-lm"
# Parameters that a figure may depend on, in the order in which they are shown.
PARAMETERS = ("prompt_tokens", "depth", "capacity", "length")


class Unit(StrEnum):
    """The unit of a figure's values."""

    SECONDS = "s"
    MILLISECONDS = "ms"
    MICROSECONDS = "us"
    BYTES = "bytes"
    BYTES_PER_SECOND = "bytes/s"
    TOKENS_PER_SECOND = "tok/s"
    COUNT = "count"
    SHARE = "share"
    RATIO = "ratio"
    TOKENS_PER_PASS = "tok/pass"

    @property
    def more_is_better(self) -> bool:
        """Whether higher values are better: true for speeds, ratios and what a pass gives."""
        speeds = (Unit.BYTES_PER_SECOND, Unit.TOKENS_PER_SECOND)
        return self in (*speeds, Unit.RATIO, Unit.TOKENS_PER_PASS)


@dataclass(frozen=True)
class Spread:
    """A summary of several values.

    Attributes:
        median: Median; for an even number of values, the mean of the middle two.
        minimum: Lowest value.
        maximum: Highest value.
        n: Number of values.
    """

    median: float
    minimum: float
    maximum: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Summarize one or more values."""
        return cls(statistics.median(values), min(values), max(values), len(values))


@dataclass(frozen=True)
class Measurement:
    """A figure and its values so far.

    Attributes:
        section: Section of the benchmark that the figure belongs to.
        name: Name with its unit, as in `ttft_s`.
        unit: Unit of the values.
        program: The program measured.
        parameters: Parameters of the measurement, such as `{"depth": 512}`; the keys are in `PARAMETERS`.
        ceiling: The hardware limit, in the same unit; None if unknown.
        values: One value per repeat, in order; warm-up rounds are not included.
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
        """Median, minimum and maximum; requires at least one value."""
        return Spread.of(self.values)

    @property
    def ceiling_share(self) -> float | None:
        """The median as a share of the ceiling; None without a ceiling or values."""
        return self.spread.median / self.ceiling if self.ceiling and self.values else None

    def same_figure(self, other: "Measurement") -> bool:
        """Return whether the other measurement is the same figure, of any program."""
        mine = (self.section, self.name, dict(self.parameters))
        return mine == (other.section, other.name, dict(other.parameters))


def advantage(ours: Measurement, theirs: Measurement) -> Spread | None:
    """Return how many times better the first figure is; above 1 it is better.

    Speeds are divided ours by theirs, everything else theirs by ours.

    Returns:
        The ratio of the medians, and the lowest and highest ratio of any round; None if no round has values
        of both.
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
    """A measurement that is repeated in turn with others.

    Attributes:
        measurements: The figures that a run yields, in order.
        run: Runs once and returns one value per figure.
    """

    measurements: tuple[Measurement, ...]
    run: Callable[[], Sequence[float]]


TrialProgress = Callable[[int, int], None]


def alternate(
    trials: Sequence[Trial], *, repeats: int, warmup: int, on_progress: TrialProgress | None = None
) -> None:
    """Run the trials in turn, so that disturbances of the machine affect all of them alike.

    Args:
        trials: Trials, run once each per round, in order.
        repeats: Number of rounds whose values are kept.
        warmup: Number of earlier rounds whose values are discarded.
        on_progress: Called after each run with the number of runs done and the total.
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
