"""Writes tiny checkpoints in the formats of AWQ, GPTQ, FP8 and compressed-tensors, packed by numpy.

The packing follows the formats' descriptions, one number after the other, and the numbers are random: nothing
is quantized. Beside each stands the checkpoint of plain numbers that it stands for, computed in float64.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from quantized_checkpoint import quantizable_config
from tiny_checkpoint import tiny_weights, write_checkpoint

AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
DTYPES = {"float32": "F32", "float16": "F16", "int32": "I32", "int64": "I64", "uint8": "U8"}


@dataclass(frozen=True)
class Stored:
    """A tensor of a dtype that numpy lacks, with the format's name for it."""

    bits: np.ndarray
    dtype: str


Tensors = dict[str, np.ndarray | Stored]
# Makes tensors, by the ends of their names, and unquantized numbers of a shape (out, in).
Packer = Callable[[np.random.RandomState, tuple[int, int]], tuple[Tensors, np.ndarray]]


@dataclass(frozen=True)
class Published:
    """A way to publish matrices, with its entry in config.json."""

    config: dict[str, Any]
    pack: Packer


def write_published(folder: Path, published: Published, family: str, **changes: Any) -> tuple[Path, Path]:
    """Write a checkpoint, and an unquantized copy. Return both folders."""
    config = {**quantizable_config(family), **changes}
    stream = np.random.RandomState(5)
    plain, stored = tiny_weights(config), Tensors()
    for name, weight in plain.items():
        if not name.endswith("_proj.weight"):
            stored[name] = weight.astype(np.float16)
            plain[name] = stored[name].astype(np.float32)
            continue
        parts, numbers = published.pack(stream, weight.shape)
        plain[name] = numbers.astype(np.float32)
        stored.update({f"{name.removesuffix('.weight')}.{part}": value for part, value in parts.items()})
    write_checkpoint(folder / "plain", config, plain)
    (folder / "published").mkdir()
    write_config(folder / "published", {**config, "quantization_config": published.config})
    write_safetensors(folder / "published", stored)
    return folder / "published", folder / "plain"


def write_config(folder: Path, config: dict[str, Any]) -> None:
    (folder / "config.json").write_text(json.dumps(config))


def write_safetensors(folder: Path, tensors: Tensors) -> None:
    header: dict[str, Any] = {}
    data = b""
    for name, tensor in tensors.items():
        bits = tensor.bits if isinstance(tensor, Stored) else tensor
        dtype = tensor.dtype if isinstance(tensor, Stored) else DTYPES[str(tensor.dtype)]
        content = np.ascontiguousarray(bits).tobytes()
        span = [len(data), len(data) + len(content)]
        header[name] = {"dtype": dtype, "shape": list(bits.shape), "data_offsets": span}
        data += content
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)


def read_safetensors(folder: Path) -> Tensors:
    content = (folder / "model.safetensors").read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header.pop("__metadata__", None)
    numpy_names = {theirs: ours for ours, theirs in DTYPES.items()}
    tensors = Tensors()
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        size = (end - begin) // max(1, int(np.prod(entry["shape"])))
        dtype = numpy_names.get(entry["dtype"], f"uint{8 * size}")
        bits = np.frombuffer(content[start + begin : start + end], dtype).reshape(entry["shape"])
        tensors[name] = bits if entry["dtype"] in numpy_names else Stored(bits, entry["dtype"])
    return tensors


def change(folder: Path, what: Callable[[Tensors, dict[str, Any]], object]) -> None:
    """Let a function alter the tensors and config.json of a checkpoint."""
    tensors, config = read_safetensors(folder), json.loads((folder / "config.json").read_text())
    what(tensors, config)
    write_config(folder, config)
    write_safetensors(folder, tensors)


def random_groups(
    stream: np.random.RandomState, shape: tuple[int, int], bits: int, group: int, zero: int | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return numbers (out, in), zeros and float16 scales (out, groups), and their values in float64."""
    out, width = shape
    count = -(-width // group)
    numbers = stream.randint(0, 1 << bits, shape)
    zeros = stream.randint(1, 1 << bits, (out, count)) if zero is None else np.full((out, count), zero)
    scales = (stream.uniform(1, 4, (out, count)) / (1 << bits) / np.sqrt(width)).astype(np.float16)
    of_number = np.arange(width) // group
    plain = (numbers - zeros[:, of_number]) * scales.astype(np.float64)[:, of_number]
    return numbers, zeros, scales, plain


def pack_rows(numbers: np.ndarray, bits: int, order: tuple[int, ...] | None = None) -> np.ndarray:
    """Pack numbers of the last axis into words: the number `order[place]` of each word at `place * bits`."""
    per_word = 32 // bits
    words = np.zeros((*numbers.shape[:-1], numbers.shape[-1] // per_word), np.uint32)
    for place in range(per_word):
        which = place if order is None else order[place]
        words |= numbers[..., which::per_word].astype(np.uint32) << np.uint32(bits * place)
    return words.view(np.int32)


def awq(group: int, scale_dtype: str = "float16", **changes: Any) -> Published:
    def pack(stream: np.random.RandomState, shape: tuple[int, int]) -> tuple[Tensors, np.ndarray]:
        size = group if group > 0 else shape[1]
        numbers, zeros, scales, plain = random_groups(stream, shape, 4, size, None)
        tensors = {
            "qweight": pack_rows(numbers.T, 4, AWQ_ORDER),
            "qzeros": pack_rows(zeros.T, 4, AWQ_ORDER),
            "scales": scales.T.astype(scale_dtype),
        }
        return tensors, plain

    config = {"quant_method": "awq", "bits": 4, "group_size": group, "version": "gemm", "zero_point": True}
    return Published({**config, "modules_to_not_convert": None, **changes}, pack)


def gptq(
    bits: int, group: int, *, zero: int | None = None, layout: str | None = "gptq", **changes: Any
) -> Published:
    def pack(stream: np.random.RandomState, shape: tuple[int, int]) -> tuple[Tensors, np.ndarray]:
        size = group if group > 0 else shape[1]
        numbers, zeros, scales, plain = random_groups(stream, shape, bits, size, zero)
        tensors = {
            "qweight": pack_rows(numbers, bits).T,
            "qzeros": pack_rows((zeros if layout == "gptq_v2" else zeros - 1).T, bits),
            "scales": scales.T,
            "g_idx": (np.arange(shape[1]) // size).astype(np.int32),
        }
        return tensors, plain

    config = {"quant_method": "gptq", "bits": bits, "group_size": group, "desc_act": False, "sym": bool(zero)}
    if layout:
        config["checkpoint_format"] = layout
    return Published({**config, **changes}, pack)


def e4m3_numbers() -> np.ndarray:
    """Return the value of each byte: sign, 4 exponent bits with bias 7, 3 mantissa bits; except two NaN."""
    byte = np.arange(256)
    exponent, mantissa = (byte >> 3) & 15, byte & 7
    magnitude = np.where(
        exponent == 0, mantissa / 8 * 2.0**-6, (1 + mantissa / 8) * 2.0 ** (exponent.astype(float) - 7)
    )
    return np.where(byte & 128, -magnitude, magnitude)


def fp8(block: tuple[int, int] | None, spelling: str = "", **changes: Any) -> Published:
    """Return FP8 with bfloat16 scales of blocks, or float32 scales `(out, 1)`, `(out,)` or `()`."""

    def pack(stream: np.random.RandomState, shape: tuple[int, int]) -> tuple[Tensors, np.ndarray]:
        out, width = shape
        bits = (stream.randint(0, 127, shape) + 128 * stream.randint(0, 2, shape)).astype(np.uint8)
        rows, columns = block or ((out, width) if spelling == "()" else (1, width))
        grid = (-(-out // rows), -(-width // columns))
        scales = stream.uniform(0.5, 2, grid).astype(np.float32) / np.float32(60 * np.sqrt(width))
        top = (scales.view(np.uint32) >> 16).astype(np.uint16)
        if block:
            scales = (top.astype(np.uint32) << 16).view(np.float32)
        of_row, of_column = np.arange(out) // rows, np.arange(width) // columns
        plain = e4m3_numbers()[bits] * scales.astype(np.float64)[of_row][:, of_column]
        tensors: Tensors = {"weight": Stored(bits, "F8_E4M3")}
        if block:
            name = "weight_scale" if "format" in changes else "weight_scale_inv"
            return {**tensors, name: Stored(top, "BF16")}, plain
        shaped = scales.reshape({"()": (), "(out,)": (out,), "(out, 1)": (out, 1)}[spelling])
        return {**tensors, "weight_scale": shaped, "input_scale": np.ones((), np.float32)}, plain

    config = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic" if block else "static"}
    if block:
        config["weight_block_size"] = list(block)
    return Published({**config, **changes}, pack)


def compressed(layout: str, weights: dict[str, Any]) -> dict[str, Any]:
    groups = {"group_0": {"weights": weights, "input_activations": None, "targets": ["Linear"]}}
    return {
        "quant_method": "compressed-tensors",
        "format": layout,
        "config_groups": groups,
        "ignore": ["lm_head"],
    }


def pack_quantized(bits: int, group: int, *, symmetric: bool) -> Published:
    def pack(stream: np.random.RandomState, shape: tuple[int, int]) -> tuple[Tensors, np.ndarray]:
        size = group if group > 0 else shape[1]
        middle = 1 << (bits - 1)
        numbers, zeros, scales, plain = random_groups(
            stream, shape, bits, size, middle if symmetric else None
        )
        tensors: Tensors = {
            "weight_packed": pack_rows(numbers, bits),
            "weight_scale": scales,
            "weight_shape": np.array(shape, np.int64),
        }
        return tensors if symmetric else {**tensors, "weight_zero_point": pack_rows(zeros.T, bits).T}, plain

    strategy = {"strategy": "group", "group_size": group} if group > 0 else {"strategy": "channel"}
    weights = {"num_bits": bits, "type": "int", "symmetric": symmetric, **strategy}
    return Published(compressed("pack-quantized", weights), pack)
