"""All figures of a run with what they were taken with, as an object and as JSON's types."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from metal_gen.bench.measurement import METAL_GEN, Measurement, Spread, Unit, advantage

SCHEMA_VERSION = 1
RATIO_MEANING = "above 1 metal-gen is better: ours/theirs for speeds, theirs/ours for all else"


@dataclass
class BenchReport:
    """What has been measured so far.

    Attributes:
        environment: Versions, device and commit.
        setup: Model, dtypes, sizes and repeats.
        measurements: In the order in which they were begun; some may have no values yet.
        notes: What a reader should know about them.
        complete: Nothing is missing of what was asked for.
    """

    environment: Mapping[str, Any]
    setup: Mapping[str, Any]
    measurements: list[Measurement] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    complete: bool = False

    @property
    def own(self) -> list[Measurement]:
        """Figures with values of metal-gen, and those that only another program has."""
        taken = [measurement for measurement in self.measurements if measurement.values]
        return [
            figure
            for figure in taken
            if figure.program == METAL_GEN
            or not any(other.program == METAL_GEN and other.same_figure(figure) for other in taken)
        ]

    def beside(self, measurement: Measurement) -> Measurement | None:
        """The same figure of the program that metal-gen is compared with."""
        for other in self.measurements:
            if other.values and other.program != measurement.program and other.same_figure(measurement):
                return other
        return None

    def ratio(self, measurement: Measurement) -> Spread | None:
        """How many times better metal-gen is; see `RATIO_MEANING`."""
        other = self.beside(measurement)
        return None if other is None else advantage(measurement, other)

    def to_dict(self) -> dict[str, Any]:
        """As JSON's types; `measurements` has an entry for each program's figure."""
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
        """Read what `to_dict` gave.

        Raises:
            ValueError: It is of another version, or something else altogether.
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
