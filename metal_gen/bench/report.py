"""The figures of a run with their environment, as an object and as JSON types."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from metal_gen.bench.measurement import METAL_GEN, Measurement, Spread, Unit, advantage

SCHEMA_VERSION = 1
RATIO_MEANING = "above 1, metal-gen is better: ours/theirs for speeds, theirs/ours for everything else"


@dataclass
class BenchReport:
    """The figures measured so far.

    Attributes:
        environment: Versions, device and commit.
        setup: Model, dtypes, sizes and repeats.
        measurements: Figures in the order in which they were started; some may have no values yet.
        notes: Notes for the reader of the figures.
        complete: Whether everything requested was measured.
    """

    environment: Mapping[str, Any]
    setup: Mapping[str, Any]
    measurements: list[Measurement] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    complete: bool = False

    @property
    def own(self) -> list[Measurement]:
        """Figures of metal-gen that have values, and figures that only another program has."""
        taken = [measurement for measurement in self.measurements if measurement.values]
        return [
            figure
            for figure in taken
            if figure.program == METAL_GEN
            or not any(other.program == METAL_GEN and other.same_figure(figure) for other in taken)
        ]

    def beside(self, measurement: Measurement) -> Measurement | None:
        """Return the same figure of the program that metal-gen is compared with; None if there is none."""
        for other in self.measurements:
            if other.values and other.program != measurement.program and other.same_figure(measurement):
                return other
        return None

    def ratio(self, measurement: Measurement) -> Spread | None:
        """Return how many times better metal-gen is; see `RATIO_MEANING`."""
        other = self.beside(measurement)
        return None if other is None else advantage(measurement, other)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON types; `measurements` has one entry per figure and program."""
        return {
            "schema_version": SCHEMA_VERSION,
            "complete": self.complete,
            "environment": dict(self.environment),
            "setup": dict(self.setup),
            "ratio_meaning": RATIO_MEANING,
            "notes": list(self.notes),
            "measurements": [self._entry(figure) for figure in self.measurements if figure.values],
        }

    def _entry(self, figure: Measurement) -> dict[str, Any]:
        ratio = self.ratio(figure) if figure.program == METAL_GEN else None
        return {
            "section": figure.section,
            "name": figure.name,
            "unit": str(figure.unit),
            "more_is_better": figure.unit.more_is_better,
            "program": figure.program,
            "parameters": dict(figure.parameters),
            **asdict(figure.spread),
            "ceiling": figure.ceiling,
            "ceiling_share": figure.ceiling_share,
            "ratio": None if ratio is None else asdict(ratio),
            "values": list(figure.values),
        }

    @classmethod
    def from_dict(cls, document: object) -> "BenchReport":
        """Read a report from the result of `to_dict`.

        Raises:
            ValueError: The document is of another version, or is not a report.
        """
        version = document.get("schema_version") if isinstance(document, dict) else None
        if not isinstance(document, dict) or version != SCHEMA_VERSION:
            raise ValueError(f"schema_version is {version!r}, not {SCHEMA_VERSION}")
        measurements = [
            Measurement(
                section=entry["section"],
                name=entry["name"],
                unit=Unit(entry["unit"]),
                program=entry["program"],
                parameters=entry["parameters"],
                ceiling=entry["ceiling"],
                values=entry["values"],
            )
            for entry in document["measurements"]
        ]
        return cls(
            document["environment"],
            document["setup"],
            measurements,
            list(document["notes"]),
            document["complete"],
        )
