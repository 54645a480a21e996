"""Converts a checkpoint to mlx-lm's format, optionally quantized.

mlx-lm's own conversion holds the whole model in memory, and does not read what transformers 5 saves. Here
memory holds at most one file of 1 GiB, plus the matrix (or the experts of one layer) being read.
"""

import errno
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from metal_gen.byte_sizes import format_bytes
from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.checkpoint.mtp_weights import mtp_tensors
from metal_gen.checkpoint.tensor_files import TensorFiles
from metal_gen.conversion.mlx_config import mlx_config
from metal_gen.conversion.mtp import copy_tensors
from metal_gen.conversion.new_folder import NewFolder
from metal_gen.conversion.shards import ShardWriter
from metal_gen.conversion.weight_converter import WeightConverter
from metal_gen.device.backend import dtype_named
from metal_gen.device.limits import room_advice
from metal_gen.errors import CheckpointError, DoesNotFitError, MetalGenError
from metal_gen.files.json_file import read_json
from metal_gen.files.weight_files import MTP_FILE
from metal_gen.models.registry import builder_for

SHARD_BYTES = 1 << 30
CONFIG_FILE = "config.json"
TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "chat_template.jinja", "chat_template.json"),
)
# Copied unchanged if they exist.
COPIED_FILES = ("generation_config.json", *TOKENIZER_FILES, "LICENSE", "LICENSE.txt")

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
MAKE_ROOM = "free some room, or name a folder on another disk"
# Called with the number of bytes done and the expected total.
OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class Conversion:
    """The result of a conversion.

    Attributes:
        size_bytes: Size of the weights.
        mtp_bytes: Size of the tensors for multi-token prediction; 0 if there are none.
        bits_per_parameter: Mean bits per parameter, scales and biases included.
    """

    size_bytes: int
    mtp_bytes: int
    bits_per_parameter: float


def convert(
    checkpoint: Checkpoint,
    out: NewFolder,
    *,
    dtype: str | None = None,
    on_progress: OnProgress | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> Conversion:
    """Convert a checkpoint.

    Args:
        checkpoint: The checkpoint, opened with the packing to write, if any.
        out: The folder to write.
        dtype: Dtype of weights that are not quantized, and of the others before quantization; None keeps the
            stored dtype.
        on_progress: Called after each tensor.
        shard_bytes: Maximum size of a weight file.

    Raises:
        CheckpointError: The checkpoint is a GGUF file, whose tokenizer cannot be copied; or the result could
            not be told apart from an unconverted checkpoint.
        DoesNotFitError: The disk has too little room or is full; nothing is left behind.
        MetalGenError: The folder cannot be written for another reason; nothing is left behind.
    """
    dtype = dtype or checkpoint.weights.dtype
    _require_convertible(checkpoint)
    with out:
        mtp = mtp_tensors(checkpoint.weights)
        mtp_bytes = sum(info.nbytes for info in mtp.values())
        expected_bytes = _require_room(checkpoint, out.path.parent, dtype, mtp_bytes)

        def on_tensor(done_bytes: int) -> None:
            if on_progress is not None:
                on_progress(done_bytes, expected_bytes)

        try:
            shards = ShardWriter(out.part, shard_bytes, on_tensor)
            _write(checkpoint, out.part, dtype, shards)
            if mtp:
                written = shards.total_bytes
                copy_tensors(mtp, out.part / MTP_FILE, lambda done_bytes: on_tensor(written + done_bytes))
            out.publish()
        except OSError as error:
            message = f"{out.path} cannot be written: {error.strerror or error}"
            if error.errno in FULL:
                raise DoesNotFitError(message, room_advice(MAKE_ROOM)) from error
            raise MetalGenError(message) from error
    return Conversion(
        shards.total_bytes, mtp_bytes, 8 * shards.total_bytes / checkpoint.weights.num_parameters
    )


def _require_convertible(checkpoint: Checkpoint) -> None:
    if checkpoint.folder.is_file():
        raise CheckpointError(
            f"{checkpoint.folder} cannot be converted: only folders with a config.json can",
            "convert the checkpoint that the file was made from",
        )
    if checkpoint.config.linear is not None and not checkpoint.config.num_linear_layers:
        raise CheckpointError(
            f"{checkpoint.folder} cannot be converted: it has no layer of linear attention, "
            "which is needed to tell how its norms are stored"
        )


def _write(checkpoint: Checkpoint, folder: Path, dtype: str, shards: ShardWriter) -> None:
    weights, config = checkpoint.weights, checkpoint.config
    forms = weights.forms
    if forms.quantizing is not None:
        forms = replace(forms, quantizing=replace(forms.quantizing, dtype=dtype))
    with TensorFiles(weights.tensors, dtype_named(dtype)) as files:
        converter = WeightConverter(config, forms, files, shards)
        builder_for(config.model_type)(config, converter)
        weights.require_spare_zeros(files)
    shards.finish(weights.num_parameters)
    original = read_json(checkpoint.folder / CONFIG_FILE)
    fields = mlx_config(original, config, dtype, converter.packings)
    (folder / CONFIG_FILE).write_text(json.dumps(fields, indent=4, ensure_ascii=False), encoding="utf-8")
    for name in COPIED_FILES:
        if (checkpoint.folder / name).is_file():
            _copy(checkpoint.folder / name, folder / name)


def _copy(source: Path, target: Path) -> None:
    try:
        source.open("rb").close()
    except OSError as error:
        raise CheckpointError(f"cannot read {source}: {error.strerror}") from error
    shutil.copyfile(source, target)


def _require_room(checkpoint: Checkpoint, place: Path, dtype: str, mtp_bytes: int) -> int:
    """Check that the disk has room for the whole result; return the bytes of the tensors to write."""
    weights_bytes = checkpoint.weights.nbytes(dtype) + mtp_bytes
    paths = [checkpoint.folder / name for name in COPIED_FILES]
    needed_bytes = weights_bytes + sum(path.stat().st_size for path in paths if path.is_file())
    free_bytes = shutil.disk_usage(place).free
    if needed_bytes > free_bytes:
        raise DoesNotFitError(
            f"no room for the converted checkpoint: {format_bytes(needed_bytes)} needed, "
            f"{format_bytes(free_bytes)} free in {place}",
            room_advice(MAKE_ROOM),
        )
    return weights_bytes
