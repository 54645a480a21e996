"""Maps the tensors of a GGUF file to those of the model that it was made from.

Source: of https://github.com/ggml-org/llama.cpp, `conversion/qwen.py`, which writes such files.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from metal_gen.checkpoint.gguf.arrangement import Arrangement, Run, decay_log, head_order, head_runs
from metal_gen.checkpoint.gguf.blocks.forms import FORMS
from metal_gen.checkpoint.gguf.header import OTHER_FILE, GgufHeader, GgufTensor
from metal_gen.checkpoint.gguf.names import TensorNames
from metal_gen.errors import CheckpointError
from metal_gen.excerpt import excerpt

USUAL_TYPES = "get the model as Q4_K_M, Q8_0, BF16 or F16"
SHARED_EXPERT_GATE = re.compile(r"blk\.\d+\.ffn_gate_inp_shexp\.weight")
BETA_AND_DECAY, TAPS = "in_proj_ba.weight", "conv1d.weight"
# Older files of Qwen3-Next keep the input projections joined, as the model has them.
JOINED_INPUTS = "ssm_in.weight"
GATE_AND_UP = re.compile(r"blk\.(\d{1,6})\.ffn_gate_up_exps\.weight")


def model_tensors(header: GgufHeader, config: Mapping[str, Any]) -> dict[str, GgufTensor]:
    """Return the tensors by the model's names.

    Args:
        header: The header of the file.
        config: The contents of the equivalent config.json.

    Raises:
        CheckpointError: A tensor is of an unsupported type.
    """
    names = tensor_names(config)
    named: dict[str, GgufTensor] = {}
    for stored in header.tensors.values():
        if stored.dtype not in FORMS:
            raise CheckpointError(
                f"{header.path} cannot be used: {excerpt(stored.name)} is stored as {stored.dtype}, "
                f"and only {', '.join(FORMS)} are supported",
                USUAL_TYPES,
            )
        for name, tensor in _parts(stored, names, config, header):
            if name in named:
                raise CheckpointError(
                    f"{header.path} cannot be used: {excerpt(named[name].name)} and {excerpt(stored.name)} "
                    "are the same part of the model",
                    OTHER_FILE,
                )
            named[name] = tensor
    return named


def tensor_names(config: Mapping[str, Any]) -> TensorNames:
    """Return the translation of a file's names.

    Args:
        config: The contents of the equivalent config.json.
    """
    return TensorNames(config["num_hidden_layers"], "linear_num_key_heads" in config)


def _parts(
    tensor: GgufTensor, names: TensorNames, config: Mapping[str, Any], header: GgufHeader
) -> Iterator[tuple[str, GgufTensor]]:
    """Yield the model's tensors that a tensor of the file contains, with their names."""
    name = names.in_model(tensor.name)
    if SHARED_EXPERT_GATE.fullmatch(tensor.name) and len(tensor.shape) == 1:
        # A matrix of one row, which some files store as a vector.
        tensor = replace(tensor, shape=(1, *tensor.shape))
    if (layer := GATE_AND_UP.fullmatch(tensor.name)) and len(tensor.shape) == 3 and not tensor.shape[1] % 2:
        experts, rows, _ = tensor.shape
        for place, kind in enumerate(("gate", "up")):
            runs = tuple((expert * rows + place * rows // 2, rows // 2) for expert in range(experts))
            part = _some_rows(tensor, rows // 2, runs)
            yield names.in_model(f"blk.{layer[1]}.ffn_{kind}_exps.weight"), part
    elif ".linear_attn." in name:
        yield from _linear_attention(name, tensor, config, header)
    else:
        yield name, tensor


def _linear_attention(
    name: str, tensor: GgufTensor, config: Mapping[str, Any], header: GgufHeader
) -> Iterator[tuple[str, GgufTensor]]:
    heads, key_heads = config["linear_num_value_heads"], config["linear_num_key_heads"]
    prefix, _, part = name.partition(".linear_attn.")
    if heads % key_heads:  # Refused when the whole config is read.
        yield name, tensor
        return
    if part == BETA_AND_DECAY and f"{_layer_in_file(tensor)}.{JOINED_INPUTS}" not in header.tensors:
        yield from _beta_and_decay(f"{prefix}.linear_attn", tensor, heads, key_heads)
        return
    if part == TAPS and len(tensor.shape) == 2:
        tensor = replace(tensor, shape=(*tensor.shape, 1))
    arrangement = Arrangement()
    if config["model_type"] != "qwen3_next" and heads != key_heads:
        arrangement = _moved_heads(part, tensor, config, header)
    if part == "A_log":
        arrangement = replace(arrangement, convert=decay_log)
    yield name, replace(tensor, arrangement=arrangement)


def _moved_heads(part: str, tensor: GgufTensor, config: Mapping[str, Any], header: GgufHeader) -> Arrangement:
    """Return where the value heads of a tensor are in the file."""
    heads, key_heads = config["linear_num_value_heads"], config["linear_num_key_heads"]
    size, before = config["linear_value_head_dim"], 2 * key_heads * config["linear_key_head_dim"]
    taps, order = config["linear_conv_kernel_dim"], head_order(heads, key_heads)
    rows = {
        "in_proj_qkv.weight": (size, before),
        "in_proj_z.weight": (size, 0),
        "in_proj_b.weight": (1, 0),
        "in_proj_a.weight": (1, 0),
        TAPS: (size * taps, before * taps),
    }
    if part in rows:
        return Arrangement(runs=head_runs(order, *rows[part]))
    if part not in ("A_log", "dt_bias", "out_proj.weight"):
        return Arrangement()
    packing = FORMS[tensor.dtype].packing
    if packing is not None and size % packing.group_size:
        raise CheckpointError(
            f"{header.path} cannot be used: {tensor.name} is stored as {tensor.dtype}, whose groups of "
            f"{packing.group_size} do not divide its heads of {size}",
            "get the model as BF16 or F16",
        )
    return Arrangement(parts=order)


def _beta_and_decay(
    prefix: str, tensor: GgufTensor, heads: int, key_heads: int
) -> Iterator[tuple[str, GgufTensor]]:
    """Yield the two matrices whose rows alternate, by key head."""
    shared = heads // key_heads
    for place, letter in enumerate("ba"):
        runs = tuple(((2 * head + place) * shared, shared) for head in range(key_heads))
        yield f"{prefix}.in_proj_{letter}.weight", _some_rows(tensor, tensor.shape[0] // 2, runs)


def _some_rows(tensor: GgufTensor, rows: int, runs: tuple[Run, ...]) -> GgufTensor:
    """Return a tensor of some of the rows of another, (..., rows, in)."""
    *outer, width = tensor.shape
    shape = (*outer[:-1], rows, width)
    nbytes = tensor.nbytes * rows // max(1, outer[-1])
    return replace(tensor, shape=shape, nbytes=nbytes, arrangement=Arrangement(runs=runs))


def _layer_in_file(tensor: GgufTensor) -> str:
    return ".".join(tensor.name.split(".")[:2])
