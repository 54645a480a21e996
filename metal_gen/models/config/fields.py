"""Reads fields of config.json one by one, so that each message can name the file and the field."""

from collections.abc import Mapping
from typing import Any

from metal_gen.errors import CheckpointError

LARGEST_INTEGER = 2**31 - 1
LARGEST_NUMBER = 1e12


class FieldReader:
    """The fields of a JSON object; one that is null counts as missing.

    Args:
        fields: The object.
        source: What to call it in messages.
    """

    def __init__(self, fields: Mapping[str, Any], source: str) -> None:
        self.fields = fields
        self.source = source

    def has(self, name: str) -> bool:
        """Whether there is such a field."""
        return self.fields.get(name) is not None

    def integer(self, name: str, default: int | None = None, *, minimum: int = 1) -> int:
        """A whole number."""
        value = self._value(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= LARGEST_INTEGER:
            raise self.error(f"{name} must be a whole number of at least {minimum}, not {_short(value)}")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """A number above 0."""
        value = self._value(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= LARGEST_NUMBER:
            raise self.error(f"{name} must be a number above 0, not {_short(value)}")
        return float(value)

    def optional_number(self, name: str) -> float | None:
        """A number above 0, or None where the field is missing."""
        return self.number(name) if self.has(name) else None

    def flag(self, name: str, default: bool) -> bool:
        """True or false."""
        value = self._value(name, default)
        if not isinstance(value, bool):
            raise self.error(f"{name} must be true or false, not {value!r}")
        return value

    def error(self, problem: str, hint: str = "") -> CheckpointError:
        """The refusal that names this object."""
        return CheckpointError(f"{self.source} cannot be used: {problem}", hint)

    def _value(self, name: str, default: Any) -> Any:
        value = self.fields[name] if self.has(name) else default
        if value is None:
            raise self.error(f"{name} is missing")
        return value


def _short(value: object) -> str:
    """A value for a message, which may be of any length."""
    text = repr(value) if not isinstance(value, int) or abs(value) < 10**30 else "a longer number"
    return text if len(text) <= 60 else text[:57] + "..."
