"""The values that the records of an output depend on; a resumed run must have the same ones."""

import hashlib
import os
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType

from metal_gen.batch.output.run_file import Value
from metal_gen.checkpoint.adapters.adapter import Adapter
from metal_gen.checkpoint.bundled import BUNDLED_NAME
from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.checkpoint.gguf.header import GgufTensor
from metal_gen.config.settings import SETTINGS
from metal_gen.config.settings_file import shown_value
from metal_gen.errors import MetalGenError, UsageError
from metal_gen.generation.loading import PreparedModel
from metal_gen.generation.prefixes.prompt_prefix import prefix_path

TEXT_SETTINGS = tuple(
    info.name
    for info in SETTINGS.values()
    if info.section in ("sampling", "generation") and info.name != "seed"
)
# These files are hashed whole. Of weight files, which are large, only both ends and the size are hashed; the
# first end of a GGUF file covers everything before the tensor data.
SMALL_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
)
END_BYTES = 65_536
PIECE_BYTES = 1 << 20


def fingerprint(
    prepared: PreparedModel, field: str | None, *, settings: Collection[str] = TEXT_SETTINGS
) -> dict[str, Value]:
    """Return the values that a run's records depend on.

    Args:
        prepared: Provides the checkpoint and the settings in force.
        field: The field that prompts are taken from.
        settings: Names of the settings to include, beside those of the model.

    Raises:
        MetalGenError: A file cannot be read.
    """
    in_force, cache = prepared.settings, prepared.plan.cache
    named: dict[str, Value] = {name: shown_value(in_force, name) for name in settings}
    return {
        "model": in_force.model or BUNDLED_NAME,
        "checkpoint": checkpoint_digest(prepared.checkpoint),
        "adapters": "; ".join(map(_adapter_mark, prepared.checkpoint.weights.adapters)) or None,
        "dtype": prepared.plan.dtype,
        "cache_dtype": cache.dtype,
        "max_seq_len": cache.max_seq_len,
        "quantize": in_force.quantize,
        "rope_scaling": shown_value(in_force, "rope_scaling"),
        **named,
        "seed": in_force.seed,
        "field": field,
        **({} if in_force.prefix_file is None else {"prefix_file": _prefix_digest(in_force.prefix_file)}),
    }


def _prefix_digest(name: str) -> str:
    path = prefix_path(name)
    if not path.is_file():
        # It is read again for the rows, and by each node.
        raise UsageError(f"a batch needs a file for its prefix, and this is none: {name}")
    return _digest_of_files([path])


def checkpoint_digest(checkpoint: Checkpoint) -> str:
    """Return a digest that identifies a checkpoint, from its small files and the ends of its large ones."""
    weights: dict[Path, int] = {}
    for info in checkpoint.weights.tensors.values():
        begin = weights.get(info.path, sys.maxsize)
        weights[info.path] = min(begin, info.offset) if isinstance(info, GgufTensor) else END_BYTES
    if checkpoint.folder.is_file():  # The first of several parts may have metadata only.
        weights.setdefault(checkpoint.folder, checkpoint.folder.stat().st_size)
    small = [checkpoint.folder / name for name in SMALL_FILES if (checkpoint.folder / name).is_file()]
    return _digest_of_files(small, ends_of=dict(sorted(weights.items())))


def _adapter_mark(adapter: Adapter) -> str:
    config, weights = adapter.files
    digest = _digest_of_files([config], ends_of={weights: END_BYTES})
    return f"{digest} times {adapter.scale:g}"


def _digest_of_files(files: list[Path], ends_of: Mapping[Path, int] = MappingProxyType({})) -> str:
    """Hash whole files, and of the files in `ends_of` the size, the first bytes (this many) and the end."""
    digest = hashlib.sha256()
    try:
        for path in files:
            with path.open("rb") as file:
                while piece := file.read(PIECE_BYTES):
                    digest.update(piece)
        for path, first_bytes in ends_of.items():
            with path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                digest.update(f"{path.name} {size}".encode())
                for place, count in ((0, first_bytes), (max(0, size - END_BYTES), END_BYTES)):
                    file.seek(place)
                    digest.update(file.read(count))
    except OSError as error:
        raise MetalGenError(f"{error.filename} cannot be read: {error.strerror}") from error
    return digest.hexdigest()
