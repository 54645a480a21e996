"""Describes models: those in the cache as a table, and one of them in detail."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import RenderableType

from metal_gen.byte_sizes import format_bytes
from metal_gen.cli.terminal.tables import Column, rows_table, shown
from metal_gen.device.backend import require_mlx
from metal_gen.errors import MetalGenError
from metal_gen.files.gguf_names import part_paths
from metal_gen.files.json_file import read_json
from metal_gen.hub.cache import unreadable
from metal_gen.hub.cached_models import CachedModel, cache_contents
from metal_gen.hub.locate import find_checkpoint
from metal_gen.hub.reference import is_on_disk
from metal_gen.models.config.summary import ConfigSummary

if TYPE_CHECKING:
    from metal_gen.checkpoint.checkpoint import Checkpoint

LIST_COLUMNS = (
    Column("model"),
    Column("size", is_figure=True),
    Column("architecture"),
    Column("weights"),
    Column("last use"),
    Column("state"),
)


def models_table(models: Sequence[CachedModel], width: int) -> RenderableType:
    """Return a table with one row per model."""
    rows = [
        (
            shown(model.reference),
            format_bytes(model.size_bytes),
            shown(model.summary.model_type or ""),
            shown(model.summary.quantization or model.summary.dtype or ""),
            "" if model.used_s is None else datetime.fromtimestamp(model.used_s).date().isoformat(),
            "" if model.state == "ready" else model.state,
        )
        for model in models
    ]
    return rows_table(LIST_COLUMNS, rows, width)


def model_json(model: CachedModel) -> dict[str, object]:
    """Return a model as JSON types."""
    used = None if model.used_s is None else datetime.fromtimestamp(model.used_s, UTC)
    return {
        "model": model.reference,
        "commit": model.commit,
        "names": list(model.names),
        "path": str(model.folder),
        "size_bytes": model.size_bytes,
        "model_type": model.summary.model_type,
        "dtype": model.summary.dtype,
        "quantization": model.summary.quantization,
        "last_use": None if used is None else used.isoformat(timespec="seconds"),
        "state": model.state,
        "missing": list(model.missing),
        "problem": model.problem,
    }


def describe_model(model: str) -> tuple[dict[str, object], MetalGenError | None]:
    """Describe a model on this disk.

    Returns:
        JSON values by name; and the reason why the model cannot be loaded, or None.

    Raises:
        ModelNotFoundError: There is no trace of the model.
        UsageError: The text cannot be a model's name.
    """
    # A folder or file takes precedence over the cache, and `main` over other commits, as in loading.
    commits = [] if is_on_disk(model) else cache_contents().matching(model)
    commits.sort(key=lambda commit: commit.reference != model)
    cached = next(iter(commits), None)
    folder = find_checkpoint(model) if cached is None else cached.folder
    try:
        paths = sorted(folder.iterdir()) if folder.is_dir() else part_paths(folder)
        files = {path.name: path.stat().st_size for path in paths if path.is_file()}
    except OSError as error:
        raise unreadable(error) from None
    unknown = {"path": str(folder), "size_bytes": sum(files.values())}
    details = unknown if cached is None else model_json(cached)
    try:
        require_mlx()
        find_checkpoint(model if cached is None else cached.reference)
        details |= _checkpoint_json(folder)
        problem = None
    except MetalGenError as error:
        problem = error
    return {**details, "files": files}, problem


def _checkpoint_json(folder: Path) -> dict[str, object]:
    """Return the shape of a loadable model, and the defaults in its generation_config.json."""
    from metal_gen.checkpoint.checkpoint import Checkpoint
    from metal_gen.checkpoint.generation_defaults import sampling_defaults
    from metal_gen.checkpoint.mtp_weights import mtp_tensors

    checkpoint = Checkpoint(folder)
    checkpoint.read_tokenizer()
    config = checkpoint.config
    return {
        "model_type": config.model_type,
        "parameters": checkpoint.weights.num_parameters,
        "dtype": checkpoint.weights.dtype,
        "quantization": _quantization(checkpoint),
        "layers": config.num_hidden_layers,
        "hidden_size": config.hidden_size,
        "query_heads": config.num_attention_heads,
        "key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "vocab_size": config.vocab_size,
        "context_length": config.context_length,
        "mtp": bool(mtp_tensors(checkpoint.weights)),
        "sampling": sampling_defaults(checkpoint.generation_config, source=checkpoint.generation_source),
    }


def _quantization(checkpoint: "Checkpoint") -> str | None:
    """Return the quantization in config.json, or the block types of a GGUF file; None if not quantized."""
    from metal_gen.checkpoint.packed.stored import FLOATS

    if checkpoint.folder.is_file():
        types = {info.dtype for info in checkpoint.weights.tensors.values()} - set(FLOATS)
        return ", ".join(sorted(types)) or None
    return ConfigSummary.from_hf(read_json(checkpoint.folder / "config.json")).quantization
