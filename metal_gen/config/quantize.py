"""The setting that quantizes weights: how many bits a number gets, or the name of a kind of numbers."""

import re
from dataclasses import dataclass

from metal_gen.config.checks import Check

DEFAULT_GROUP_SIZE = 64
# Bits, and how many numbers share a scale.
AFFINE = re.compile(r"([234568])(?:g(32|64|128))?", re.ASCII)
MICROSCALED = ("mxfp4", "mxfp8", "nvfp4")


@dataclass(frozen=True)
class Quantize(Check):
    """`4`, `4g32` or `mxfp4`."""

    def __call__(self, value: object) -> str:
        """Accept a number of bits, or a text; the default group size is left out of it."""
        text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
        if isinstance(text, str) and text in MICROSCALED:
            return text
        match = AFFINE.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise ValueError(f"must be {self}")
        return match[0].removesuffix(f"g{DEFAULT_GROUP_SIZE}")

    def from_text(self, text: str) -> str:
        """Take the text as it is."""
        return self(text)

    def __str__(self) -> str:
        return (
            "2, 3, 4, 5, 6 or 8 bits, which may be followed by g32, g64 or g128 as in 4g32, "
            f"or one of {', '.join(MICROSCALED)}"
        )
