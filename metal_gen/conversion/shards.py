"""Writes weights to safetensors files; memory holds one file at a time.

Source: `save_model` in `mlx_lm/utils.py` of mlx-lm 0.32.2, for the names and the index.
"""

import json
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx

from metal_gen.device.buffer_cache import clear_buffer_cache
from metal_gen.files.sync import sync_file
from metal_gen.files.weight_files import WEIGHTS_INDEX, shard_name


class ShardWriter:
    """Writes tensors in the order in which they are added.

    Args:
        folder: The folder of the files.
        shard_bytes: Maximum size of a file, unless a single tensor is larger.
        on_tensor: Called after each tensor with the total bytes so far.

    Attributes:
        total_bytes: Size of all tensors so far.
    """

    def __init__(self, folder: Path, shard_bytes: int, on_tensor: Callable[[int], object]) -> None:
        self.total_bytes = 0
        self._folder = folder
        self._shard_bytes = shard_bytes
        self._on_tensor = on_tensor
        self._pending: dict[str, mx.array] = {}
        self._shards: list[list[str]] = []

    def add(self, name: str, array: mx.array) -> None:
        """Add a tensor; first write the pending tensors if it would overfill their file.

        Raises:
            OSError: A file cannot be written.
        """
        pending_bytes = sum(other.nbytes for other in self._pending.values())
        if self._pending and pending_bytes + array.nbytes > self._shard_bytes:
            self._flush()
        self._pending[name] = array
        self.total_bytes += array.nbytes
        self._on_tensor(self.total_bytes)

    def finish(self, num_parameters: int) -> None:
        """Write the remaining tensors and the index, and give the files their final names.

        Args:
            num_parameters: Number of parameters of the model, for the index.

        Raises:
            OSError: A file cannot be written.
        """
        self._flush()
        count = len(self._shards)
        weight_map = {}
        for number, names in enumerate(self._shards, 1):
            file = shard_name(number, count)
            self._unnamed(number).replace(self._folder / file)
            weight_map.update(dict.fromkeys(names, file))
        metadata = {"total_size": self.total_bytes, "total_parameters": num_parameters}
        index = {"metadata": metadata, "weight_map": dict(sorted(weight_map.items()))}
        (self._folder / WEIGHTS_INDEX).write_text(json.dumps(index, indent=4))

    def _flush(self) -> None:
        self._shards.append(list(self._pending))
        # MLX writes through a Python file, whose errors give the reason.
        with self._unnamed(len(self._shards)).open("wb") as file:
            mx.save_safetensors(file, self._pending, metadata={"format": "mlx"})
            file.flush()
            sync_file(file.fileno())
        self._pending = {}
        clear_buffer_cache()

    def _unnamed(self, number: int) -> Path:
        """Return the path of a file until the number of files is known."""
        return self._folder / f"{number}.part"
