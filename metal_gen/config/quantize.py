"""The setting for quantization: a number of bits, or the name of a microscaling format."""

import re
from dataclasses import dataclass

from metal_gen.config.checks import Check

DEFAULT_GROUP_SIZE = 64
# Supported by MLX: bits per weight, and weights per scale.
AFFINE_BITS = (2, 3, 4, 5, 6, 8)
AFFINE_GROUP_SIZES = (32, 64, 128)
AFFINE = re.compile(rf"({'|'.join(map(str, AFFINE_BITS))})(?:g({'|'.join(map(str, AFFINE_GROUP_SIZES))}))?")
# Bits and group size of the microscaling formats.
MICROSCALED = {"mxfp4": (4, 32), "mxfp8": (8, 32), "nvfp4": (4, 16)}
# Usual values, for shell completion.
USUAL_PACKINGS = (*map(str, AFFINE_BITS), *MICROSCALED)


@dataclass(frozen=True)
class Quantize(Check):
    """`4`, `4g32` or `mxfp4`."""

    def __call__(self, value: object) -> str:
        """Accept a number of bits, or a text; the default group size is omitted from the result."""
        text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
        if isinstance(text, str) and text in MICROSCALED:
            return text
        match = AFFINE.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise ValueError(f"must be {self}")
        return match[0].removesuffix(f"g{DEFAULT_GROUP_SIZE}")

    def from_text(self, text: str) -> str:
        """Take the text unchanged."""
        return self(text)

    def __str__(self) -> str:
        return (
            "2, 3, 4, 5, 6 or 8 bits, which may be followed by g32, g64 or g128 as in 4g32, "
            f"or one of {', '.join(MICROSCALED)}"
        )


def name_packing(quantize: str, group_size: int | None, mode: str | None) -> str:
    """Return the value of the setting for mlx-lm's three options.

    Args:
        quantize: Bits, or the whole value.
        group_size: Weights per scale.
        mode: `affine`, or the name of a microscaling format.

    Raises:
        ValueError: The options contradict each other.
    """
    named = quantize if mode is None or mode == "affine" else mode
    if named in MICROSCALED:
        bits, size = MICROSCALED[named]
        if mode == "affine" or quantize not in (named, str(bits)) or group_size not in (None, size):
            raise ValueError(f"{named} has {bits} bits in groups of {size}")
        return named
    if group_size is None:
        return quantize
    match = AFFINE.fullmatch(quantize)
    if match is not None and match[2] is not None:
        raise ValueError(f"{quantize} has a group size already")
    return f"{quantize}g{group_size}"
