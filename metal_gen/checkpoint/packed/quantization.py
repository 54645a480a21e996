"""Reads from config.json how weights are quantized.

Source: `mlx_lm/utils.py` of mlx-lm 0.32.2, which writes `quantization` and reads it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from metal_gen.checkpoint.packed.stored import Method
from metal_gen.config import quantize
from metal_gen.config.quantize import AFFINE_BITS, AFFINE_GROUP_SIZES
from metal_gen.models.config.fields import FieldReader, quoted
from metal_gen.models.config.language_part import model_name
from metal_gen.models.matrices.quantized import Packing

# The only packing of each of the other modes.
MICROSCALED = {mode: Packing(bits, size, mode) for mode, (bits, size) in quantize.MICROSCALED.items()}
PACKING_FIELDS = ("bits", "group_size", "mode")


@dataclass(frozen=True)
class Quantization:
    """How the matrices of a checkpoint are quantized.

    Attributes:
        default: Packing of matrices that are not named; None if only named matrices are quantized.
        by_name: Packing of single matrices; None for one that is not quantized.
        method: Method of another program, which replaces the other two.
    """

    default: Packing | None = None
    by_name: Mapping[str, Packing | None] = field(default_factory=dict)
    method: Method | None = None

    def packing_of(self, name: str) -> Packing | None:
        """Return the packing of a matrix, or None if it is not quantized."""
        return self.by_name.get(name, self.default)


def read_quantization(config: Mapping[str, Any], source: str) -> Quantization:
    """Read the contents of a config.json.

    Args:
        config: The parsed JSON object.
        source: Name of the file in error messages.

    Raises:
        CheckpointError: The quantization is invalid or not supported.
    """
    text = config.get("text_config")
    # Of a vision-language model, the text's own entry counts if the whole model has none.
    places = (config, text) if isinstance(text, Mapping) else (config,)
    for place, field_name in product(places, ("quantization", "quantization_config")):
        given = place.get(field_name)
        if not given:
            continue
        fields = FieldReader(given if isinstance(given, Mapping) else {}, f"{field_name} in {source}")
        if not isinstance(given, Mapping):
            raise fields.error("it must be an object")
        method = given.get("quant_method")
        if isinstance(method, str) and method in MICROSCALED:
            return Quantization(MICROSCALED[method])
        if method is not None:
            from metal_gen.checkpoint.packed.methods import read_method

            return Quantization(method=read_method(fields))
        return _read_packings(fields)
    return Quantization()


def _read_packings(fields: FieldReader) -> Quantization:
    by_name: dict[str, Packing | None] = {}
    for name, value in fields.fields.items():
        plain = model_name(name)
        if name in PACKING_FIELDS or plain is None or not isinstance(value, Mapping | bool):
            continue
        inner = FieldReader(
            value if isinstance(value, Mapping) else fields.fields, f"{name} of {fields.source}"
        )
        by_name[plain] = None if value is False else read_packing(inner)
    return Quantization(read_packing(fields), by_name)


def read_packing(fields: FieldReader) -> Packing:
    """Read bits, group size and mode from an object.

    Raises:
        CheckpointError: MLX has no such packing.
    """
    mode = fields.fields.get("mode", "affine")
    if isinstance(mode, str) and mode in MICROSCALED:
        packing = MICROSCALED[mode]
        given = Packing(
            fields.integer("bits", packing.bits), fields.integer("group_size", packing.group_size), mode
        )
        if given != packing:
            raise fields.error(
                f"{mode} has {packing.bits} bits in groups of {packing.group_size}, "
                f"not {given.bits} in {given.group_size}"
            )
        return packing
    if mode != "affine":
        raise fields.error(f"mode is {quoted(mode)}, and MLX has affine, {', '.join(MICROSCALED)}")
    bits, group_size = fields.integer("bits", 4), fields.integer("group_size", 64)
    for name, value, known in (("bits", bits, AFFINE_BITS), ("group_size", group_size, AFFINE_GROUP_SIZES)):
        if value not in known:
            raise fields.error(f"{name} is {value}, and MLX has {', '.join(map(str, known))}")
    return Packing(bits, group_size)
