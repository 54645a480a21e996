#!/usr/bin/env python3
"""Compares the logits of files from llama.cpp's own quantizer with those of their dequantized weights.

Needs llama.cpp's `llama-quantize` and its Python package `gguf` in addition to metal-gen. The models are tiny
and have random weights; `gguf.dequantize` defines the values of the blocks.

    python scripts/check_gguf.py ~/llama.cpp/build/bin/llama-quantize
    python scripts/check_gguf.py ~/llama.cpp/build/bin/llama-quantize --types Q3_K_M IQ4_XS

Exits with 1 if float32 logits differ by more than 2e-6 of the largest one.
"""

import argparse
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import gguf
import mlx.core as mx
import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "support" / "checkpoints"))
from gguf_file import gguf_config, write_gguf, write_tiny_gguf
from hybrid_gguf import hybrid_config, write_hybrid
from tiny_checkpoint import PROMPT

from metal_gen.cache.hybrid import new_cache
from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.config.settings import Settings
from metal_gen.generation.memory.planning import cache_config

MODELS = ("qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "qwen3_next", "qwen3_5", "qwen3_5_moe")
TYPES = (
    *("BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L"),
    *("Q4_K_S", "Q4_K_M", "Q5_K_S", "Q5_K_M", "Q6_K", "IQ4_NL", "IQ4_XS", "MXFP4_MOE"),
)
TOLERANCE = 2e-6


def unquantized(folder: Path, name: str) -> Path:
    """Return a model in float32, as converted by llama.cpp."""
    if name in ("qwen3_next", "qwen3_5", "qwen3_5_moe"):
        arch = name if name == "qwen3_next" else f"{name}_text"
        sizes = {"linear_num_key_heads": 2, "linear_key_head_dim": 128, "linear_value_head_dim": 128}
        file: Path = write_hybrid(folder, hybrid_config(arch, 256, **sizes))[0]
    else:
        file = write_tiny_gguf(folder, gguf_config(name), lambda _: "F32")[0]
    return file


def quantized(quantizer: Path, file: Path, kind: str) -> Path:
    """Quantize a model with llama.cpp; return the new file."""
    out = file.with_name(f"{kind}.gguf")
    done = subprocess.run([quantizer, file, out, kind, "1"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{quantizer} failed:\n{done.stdout}{done.stderr}")
    return out


def dequantized(file: Path) -> tuple[Path, Counter[str]]:
    """Write a model in float32; return the file, and the number of source tensors of each type."""
    reader = gguf.GGUFReader(file)
    metadata = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    tensors = {}
    for tensor in reader.tensors:
        numbers = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        shape = tuple(int(size) for size in reversed(tensor.shape))
        tensors[tensor.name] = ("F32", shape, numbers.tobytes())
    types = Counter(tensor.tensor_type.name for tensor in reader.tensors)
    return write_gguf(file.with_suffix(".plain.gguf"), metadata, tensors), types


def logits_of(file: Path) -> np.ndarray:
    """Return the float32 logits of a short prompt, computed by metal-gen."""
    model = Checkpoint(file).weights.load("float32")
    cache = new_cache(cache_config(Settings(max_seq_len=64), model.config, "float32"))
    return np.array(model.logits(model(mx.array([PROMPT]), cache))[0])


def main() -> int:
    """Check every model in every type."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("quantizer", type=Path, help="Path of llama-quantize")
    parser.add_argument("--types", nargs="+", default=TYPES, help="As llama-quantize spells them")
    parser.add_argument("--models", nargs="+", default=MODELS, help="Values of model_type")
    arguments = parser.parse_args()
    worst = 0.0
    for name in arguments.models:
        with tempfile.TemporaryDirectory() as folder:
            source = unquantized(Path(folder), name)
            for kind in arguments.types:
                file = quantized(arguments.quantizer.expanduser(), source, kind)
                plain, types = dequantized(file)
                expected = logits_of(plain)
                difference = float(np.abs(logits_of(file) - expected).max() / np.abs(expected).max())
                worst = max(worst, difference)
                print(f"{name:12} {kind:10} {difference:.1e}  {dict(types)}", flush=True)
    return int(worst > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
