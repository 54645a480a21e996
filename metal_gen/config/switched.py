"""A number that can be switched off, as other programs have it: `top_k = 0`, `max_tokens = -1`."""

from dataclasses import dataclass

from metal_gen.config.checks import Check, Whole


@dataclass(frozen=True)
class Switched(Whole):
    """A whole number, or one of those that stand for none.

    Attributes:
        off: What switches it off; the first stands for all of them.
        meaning: What happens then, for a message.
    """

    off: tuple[int, ...] = ()
    meaning: str = ""

    def __call__(self, value: object) -> int:
        """Accept an int; a bool is not one."""
        if isinstance(value, int) and not isinstance(value, bool) and value in self.off:
            return self.off[0]
        return super().__call__(value)

    def __str__(self) -> str:
        return f"{super().__str__()}, or {self.off[0]} {self.meaning}"


def value_in_force(check: Check, value: object) -> object:
    """What a checked value comes to: None where it switches its setting off."""
    return None if isinstance(check, Switched) and value == check.off[0] else value


def value_to_write(check: Check, value: object) -> object:
    """The opposite, for a setting that somebody has set."""
    return check.off[0] if isinstance(check, Switched) and value is None else value
