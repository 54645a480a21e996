"""A number with a value that means "off", as in other programs: `top_k = 0`, `max_tokens = -1`."""

from dataclasses import dataclass

from metal_gen.config.checks import Check, Whole


@dataclass(frozen=True)
class Switched(Whole):
    """A whole number, or one of the values that switch the setting off.

    Attributes:
        off: The values that switch it off; checking replaces them by the first one.
        meaning: What "off" means, for a message.
    """

    off: tuple[int, ...] = ()
    meaning: str = ""

    def __call__(self, value: object) -> int:
        """Accept an int, but not a bool."""
        if isinstance(value, int) and not isinstance(value, bool) and value in self.off:
            return self.off[0]
        return super().__call__(value)

    def __str__(self) -> str:
        return f"{super().__str__()}, or {self.off[0]} {self.meaning}"


def value_in_force(check: Check, value: object) -> object:
    """Return the effect of a checked value: None if it switches the setting off."""
    return None if isinstance(check, Switched) and value == check.off[0] else value


def value_to_write(check: Check, value: object) -> object:
    """Return the value to write for a setting that has been set: the inverse of `value_in_force`."""
    return check.off[0] if isinstance(check, Switched) and value is None else value
