"""Copies the layers for multi-token prediction (mtp), which mlx-lm does not support.

They are copied unchanged to a file that mlx-lm does not read. Nothing is added to the weights of norms there.

Source: https://github.com/huggingface/safetensors#format
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from metal_gen.errors import CheckpointError
from metal_gen.excerpt import excerpt
from metal_gen.files.safetensors_header import BITS, TensorInfo
from metal_gen.files.sync import sync_file

PIECE_BYTES = 1 << 24
ALIGNMENT = 8


def copy_tensors(tensors: Mapping[str, TensorInfo], target: Path, on_bytes: Callable[[int], object]) -> None:
    """Write tensors to a safetensors file as they are.

    Args:
        tensors: The tensors, by the names to write.
        target: The file to write.
        on_bytes: Called with the number of bytes written so far.

    Raises:
        CheckpointError: A tensor cannot be read any more.
        OSError: The file cannot be written.
    """
    # In the order of the safetensors package, which aligns each type.
    ordered = dict(sorted(tensors.items(), key=lambda item: (-BITS[item[1].dtype], item[0])))
    with target.open("wb") as file:
        file.write(_header(ordered))
        done = 0
        for info in ordered.values():
            for piece in _pieces(info):
                file.write(piece)
                done += len(piece)
                on_bytes(done)
        file.flush()
        sync_file(file.fileno())


def _header(tensors: Mapping[str, TensorInfo]) -> bytes:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    place = 0
    for name, info in tensors.items():
        end = place + info.nbytes
        entries[name] = {"dtype": info.dtype, "shape": info.shape, "data_offsets": [place, end]}
        place = end
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _pieces(info: TensorInfo) -> Iterator[bytes]:
    """Yield the bytes of a tensor."""
    try:
        with info.path.open("rb") as file:
            file.seek(info.offset)
            for begin in range(0, info.nbytes, PIECE_BYTES):
                count = min(PIECE_BYTES, info.nbytes - begin)
                piece = file.read(count)
                if len(piece) < count:
                    raise CheckpointError(
                        f"{info.path} was changed while it was read: {excerpt(info.name)} is cut short",
                        "run the same command again once nothing writes to the checkpoint",
                    )
                yield piece
    except OSError as error:
        raise CheckpointError(f"cannot read {info.path}: {error.strerror}") from error
