"""Reads from config.json how programs other than MLX have quantized a checkpoint.

The files show which matrices are quantized, so the lists of unquantized ones (`modules_to_not_convert`,
`ignore`) are not read.

Source: `utils/quantization_config.py` of Hugging Face transformers; the documentation of GPTQModel
(`dynamic`) and of compressed-tensors; `inference/backend.py` of AutoRound.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from metal_gen.checkpoint.packed.awq import AWQ_BITS, Awq
from metal_gen.checkpoint.packed.compressed_tensors import PACK_QUANTIZED_BITS, PackQuantized
from metal_gen.checkpoint.packed.fp8 import Fp8
from metal_gen.checkpoint.packed.gptq import GPTQ_BITS, Gptq
from metal_gen.checkpoint.packed.groups import Groups
from metal_gen.checkpoint.packed.stored import Method, NotQuantized
from metal_gen.errors import CheckpointError
from metal_gen.excerpt import excerpt
from metal_gen.models.config.fields import FieldReader, quoted

HINT = "use the checkpoint's MLX version (mlx-community has many), or one in bfloat16"
AUTO_ROUND_GPTQ, AUTO_ROUND_AWQ = "auto_round:auto_gptq", "auto_round:auto_awq"
# The last one stores GPTQ's zeros unchanged.
AUTO_ROUND_LAYOUTS = (AUTO_ROUND_GPTQ, AUTO_ROUND_AWQ, "auto_round:gptqmodel")
# Numbers with this many bits or more are not quantized.
PLAIN_BITS = 16
# Supported fields in which GPTQModel lets single matrices differ from the others.
GPTQ_FIELDS = ("bits", "group_size", "sym", "desc_act", "pack_dtype", "checkpoint_format", "format")


def read_method(fields: FieldReader) -> Method:
    """Read an object that has a `quant_method`.

    Raises:
        CheckpointError: Such weights are not supported.
    """
    name = fields.fields["quant_method"]
    reader = _READERS.get(name) if isinstance(name, str) else None
    if reader is None:
        raise _refusal(
            fields, f"quant_method is {quoted(name)}, and only {_listed(list(_READERS))} are supported"
        )
    return reader(fields)


def _read_awq(fields: FieldReader) -> Method:
    bits = _one_of(fields, "bits", (AWQ_BITS,), default=AWQ_BITS)
    for name in ("version", "format", "checkpoint_format"):
        _one_of(fields, name, ("gemm",), default="gemm")
    _one_of(fields, "backend", ("autoawq", "gptqmodel"), default="autoawq")
    return Awq(Groups(bits, _group_size(fields)))


def _read_gptq(fields: FieldReader) -> Method:
    bits = _one_of(fields, "bits", GPTQ_BITS, default=4)
    _one_of(fields, "pack_dtype", ("int32",), default="int32")
    _one_of(fields, "is_marlin_format", (False,), default=False)
    size = _group_size(fields)
    if size is not None and fields.flag("desc_act", False):
        raise _refusal(
            fields,
            "desc_act is true, which groups inputs by importance, "
            "and only groups of neighboring inputs are supported",
        )
    named = "format" if fields.has("format") and not fields.has("checkpoint_format") else "checkpoint_format"
    layout = _one_of(fields, named, ("gptq", "gptq_v2"), default="gptq")
    _check_dynamic(fields)
    return Gptq(Groups(bits, size), layout == "gptq", is_symmetric=fields.flag("sym", False))


def _check_dynamic(fields: FieldReader) -> None:
    """Check `dynamic`: `-:` patterns name unquantized matrices, and others name matrices that differ."""
    dynamic = fields.fields.get("dynamic") or {}
    if not isinstance(dynamic, Mapping):
        raise fields.error("dynamic must be an object")
    for pattern, changes in dynamic.items():
        if pattern.startswith("-:") or not isinstance(changes, Mapping):
            continue
        for name in GPTQ_FIELDS:
            if name in changes and changes[name] != fields.fields.get(name):
                raise _refusal(
                    fields,
                    f"dynamic gives {excerpt(pattern)} {name} {quoted(changes[name])}, "
                    "and only checkpoints with one quantization for all matrices are supported",
                )


def _read_auto_round(fields: FieldReader) -> Method:
    """Read AutoRound's own format, whose tensors are those of GPTQ or AWQ."""
    layout = _one_of(fields, "packing_format", AUTO_ROUND_LAYOUTS)
    _one_of(fields, "data_type", ("int",), default="int")
    _one_of(fields, "act_bits", (16, 32), default=16)
    _check_extra_config(fields)
    if layout == AUTO_ROUND_AWQ:
        return Awq(Groups(_one_of(fields, "bits", (AWQ_BITS,), default=AWQ_BITS), _group_size(fields)))
    groups = Groups(_one_of(fields, "bits", GPTQ_BITS, default=4), _group_size(fields))
    return Gptq(groups, layout == AUTO_ROUND_GPTQ, is_symmetric=fields.flag("sym", False))


def _check_extra_config(fields: FieldReader) -> None:
    """Check that each named matrix is unquantized, as its bits say, or like the others."""
    extra = fields.fields.get("extra_config") or {}
    if not isinstance(extra, Mapping) or not all(isinstance(each, Mapping) for each in extra.values()):
        raise fields.error("extra_config must be an object of objects")
    for matrix, given in extra.items():
        inner = FieldReader(given, fields.source)
        if inner.integer("bits", 4) >= PLAIN_BITS:
            continue
        for name in ("bits", "group_size", "sym", "data_type"):
            if name in given and given[name] != fields.fields.get(name):
                raise _refusal(
                    fields,
                    f"extra_config gives {excerpt(matrix)} {name} {quoted(given[name])}, "
                    "and only checkpoints with one quantization for all matrices are supported",
                )


def _read_fp8(fields: FieldReader) -> Method:
    _one_of(fields, "fmt", ("e4m3", "float8_e4m3fn"), default="e4m3")
    return Fp8(_block(fields, "weight_block_size"))


def _read_compressed_tensors(fields: FieldReader) -> Method:
    groups = fields.fields.get("config_groups")
    if not groups and fields.fields.get("format") == "dense":  # Only the cache is in 8 bits, but not here.
        return NotQuantized()
    if not isinstance(groups, Mapping) or len(groups) != 1:
        raise _refusal(fields, "config_groups must be an object with one group; others are not supported")
    group = next(iter(groups.values()))
    given = group.get("weights") if isinstance(group, Mapping) else None
    if not isinstance(given, Mapping):
        raise fields.error("config_groups has no weights")
    for name in ("sparsity_config", "transform_config"):
        value = fields.fields.get(name)
        if value and not (isinstance(value, Mapping) and value.get("format") == "dense"):
            raise _refusal(fields, f"{name} is given, and such weights are not supported")
    weights = FieldReader(given, f"weights of config_groups of {fields.source}")
    formats = ("pack-quantized", "float-quantized", "naive-quantized")
    if _one_of(fields, "format", formats) == "pack-quantized":
        return _read_pack_quantized(weights)
    _one_of(weights, "type", ("float",))
    _one_of(weights, "num_bits", (8,))
    by_block = _one_of(weights, "strategy", ("tensor", "channel", "block")) == "block"
    return Fp8(_block(weights, "block_structure") if by_block else None)


def _read_pack_quantized(weights: FieldReader) -> Method:
    _one_of(weights, "type", ("int",))
    bits = _one_of(weights, "num_bits", PACK_QUANTIZED_BITS)
    _one_of(weights, "actorder", (False, "weight", "static"), default=False)
    by_row = _one_of(weights, "strategy", ("group", "channel")) == "channel"
    groups = Groups(bits, None if by_row else _group_size(weights))
    return PackQuantized(groups, weights.flag("symmetric", True))


def _one_of(fields: FieldReader, name: str, known: Sequence[Any], default: Any = None) -> Any:
    """Return the value of a field, with words in lower case. Refuse a value that is not known."""
    value = fields.fields[name] if fields.has(name) else default
    plain = value.lower() if isinstance(value, str) else value
    # Types must match too: True equals 1, but is another value.
    if not any(type(plain) is type(one) and plain == one for one in known):
        verb = "are" if len(known) > 1 else "is"
        raise _refusal(fields, f"{name} is {quoted(value)}, and only {_listed(known)} {verb} supported")
    return plain


def _group_size(fields: FieldReader) -> int | None:
    """Read how many numbers share a scale. Return None for a whole row, which the field writes as -1."""
    size = fields.integer("group_size", 128, minimum=-1)
    if size == 0:
        raise fields.error("group_size must be above 0, or -1 for whole rows, not 0")
    return None if size < 0 else size


def _block(fields: FieldReader, name: str) -> tuple[int, int] | None:
    given = fields.fields.get(name)
    if given is None:
        return None
    if (
        not isinstance(given, Sequence)
        or len(given) != 2
        or not all(type(size) is int and size > 0 for size in given)
    ):
        raise fields.error(f"{name} must be two whole numbers above 0, not {quoted(given)}")
    return given[0], given[1]


def _refusal(fields: FieldReader, problem: str) -> CheckpointError:
    return fields.error(problem, HINT)


def _listed(known: Sequence[Any]) -> str:
    *others, last = [str(value) for value in known]
    return f"{', '.join(others)} and {last}" if others else last


_READERS: Mapping[str, Callable[[FieldReader], Method]] = {
    "awq": _read_awq,
    "gptq": _read_gptq,
    "auto-round": _read_auto_round,
    "fp8": _read_fp8,
    "compressed-tensors": _read_compressed_tensors,
}
