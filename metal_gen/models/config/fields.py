"""Reads the fields of config.json one by one, so that each error can name the file and the field."""

from collections.abc import Mapping, Sequence
from typing import Any

from metal_gen.errors import CheckpointError
from metal_gen.excerpt import excerpt

MOST_QUOTED = 60
LARGEST_INTEGER = 2**31 - 1
# Products of a few numbers in this range are neither 0 nor infinite in float32.
SMALLEST_NUMBER, LARGEST_NUMBER = 1e-12, 1e12


class FieldReader:
    """The fields of a JSON object. A null field counts as missing.

    Args:
        fields: The object.
        source: Name of the object in error messages.
        hint: Hint of errors that have none of their own.
    """

    def __init__(self, fields: Mapping[str, Any], source: str, hint: str = "") -> None:
        self.fields = fields
        self.source = source
        self._hint = hint

    def has(self, name: str) -> bool:
        """Return whether the object has this field."""
        return self.fields.get(name) is not None

    def integer(
        self, name: str, default: int | None = None, *, minimum: int = 1, maximum: int = LARGEST_INTEGER
    ) -> int:
        """Return a field that holds a whole number."""
        value = self._value(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= maximum:
            range_ = (
                f"of at least {minimum}" if maximum == LARGEST_INTEGER else f"from {minimum} to {maximum:,}"
            )
            raise self.error(f"{name} must be a whole number {range_}, not {quoted(value)}")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """Return a field that holds a number above 0."""
        value = self._value(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.error(f"{name} must be a number above 0, not {quoted(value)}")
        if not SMALLEST_NUMBER <= value <= LARGEST_NUMBER:
            raise self.error(
                f"{name} must be a number from {SMALLEST_NUMBER:g} to {LARGEST_NUMBER:g}, not {quoted(value)}"
            )
        return float(value)

    def optional_number(self, name: str) -> float | None:
        """Return a field that holds a number above 0, or None if the field is missing."""
        return self.number(name) if self.has(name) else None

    def flag(self, name: str, default: bool) -> bool:
        """Return a field that holds true or false."""
        value = self._value(name, default)
        if not isinstance(value, bool):
            raise self.error(f"{name} must be true or false, not {quoted(value)}")
        return value

    def error(self, problem: str, hint: str = "") -> CheckpointError:
        """Return the error that refuses this object."""
        return CheckpointError(f"{self.source} cannot be used: {problem}", hint or self._hint)

    def _value(self, name: str, default: Any) -> Any:
        value = self.fields[name] if self.has(name) else default
        if value is None:
            raise self.error(f"{name} is missing")
        return value


def quoted(value: object) -> str:
    """Format a value as Python writes it, shortened for a message."""
    return excerpt(value if isinstance(value, int) else repr(value), MOST_QUOTED)


def listed(names: Sequence[str], most: int = 12) -> str:
    """Join the first `most` names for a message, and say how many more there are."""
    shown = ", ".join(excerpt(name, MOST_QUOTED) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most:,} more"
