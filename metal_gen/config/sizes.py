"""A number of bytes, with or without a unit."""

import re
from dataclasses import dataclass

from metal_gen.config.checks import Check, Whole

BYTES = Whole(1, 2**62)
PREFIXES = "KMGT"
SIZE = re.compile(rf"(\d{{1,20}}(?:\.\d{{1,20}})?) ?(?:([{PREFIXES}])(I?B)?|B)?", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class Size(Check):
    """A size in bytes: `12G` and `12GiB` are 12 times 2^30 bytes, `12GB` is 12 times 10^9."""

    def __call__(self, value: object) -> int:
        """Accept an int, or a text with a unit."""
        if isinstance(value, str):
            return self.from_text(value)
        try:
            return BYTES(value)
        except ValueError:
            raise ValueError(f"must be {self}") from None

    def from_text(self, text: str) -> int:
        """Parse a number and its unit."""
        match = SIZE.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"must be {self}")
        number, prefix, ending = match.groups()
        base = 1000 if ending is not None and ending.upper() == "B" else 1024
        unit = 1 if prefix is None else base ** (1 + PREFIXES.index(prefix.upper()))
        return self(round(float(number) * unit) if "." in number else int(number) * unit)

    def __str__(self) -> str:
        return "a number of bytes of at least 1, or a size such as 12G, 1GB or 512MiB"
