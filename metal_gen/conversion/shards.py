"""Weights on their way into safetensors files, of which memory holds one at a time.

Source: `save_model` in `mlx_lm/utils.py` of mlx-lm 0.32.2, for the names and the index.
"""

import json
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx

from metal_gen.files.sync import sync_file
from metal_gen.files.weight_files import WEIGHTS_FILE, WEIGHTS_INDEX


class ShardWriter:
    """Writes tensors in the order in which they come.

    Args:
        folder: Gets the files.
        shard_bytes: Most that a file holds, unless it is of one tensor that is larger.
        on_tensor: Told after each how many bytes there have been.

    Attributes:
        total_bytes: Of all tensors so far.
    """

    def __init__(self, folder: Path, shard_bytes: int, on_tensor: Callable[[int], object]) -> None:
        self.total_bytes = 0
        self._folder = folder
        self._shard_bytes = shard_bytes
        self._on_tensor = on_tensor
        self._pending: dict[str, mx.array] = {}
        self._shards: list[list[str]] = []

    def add(self, name: str, array: mx.array) -> None:
        """Take the next tensor, and write those before it if they fill a file.

        Raises:
            OSError: They cannot be written.
        """
        pending_bytes = sum(other.nbytes for other in self._pending.values())
        if self._pending and pending_bytes + array.nbytes > self._shard_bytes:
            self._flush()
        self._pending[name] = array
        self.total_bytes += array.nbytes
        self._on_tensor(self.total_bytes)

    def finish(self, num_parameters: int) -> None:
        """Write what is left and the index, and give the files their names.

        Args:
            num_parameters: Of the model, for the index.

        Raises:
            OSError: They cannot be written.
        """
        self._flush()
        count = len(self._shards)
        weight_map = {}
        for number, names in enumerate(self._shards, 1):
            file = WEIGHTS_FILE if count == 1 else f"model-{number:05d}-of-{count:05d}.safetensors"
            self._unnamed(number).replace(self._folder / file)
            weight_map.update(dict.fromkeys(names, file))
        metadata = {"total_size": self.total_bytes, "total_parameters": num_parameters}
        index = {"metadata": metadata, "weight_map": dict(sorted(weight_map.items()))}
        (self._folder / WEIGHTS_INDEX).write_text(json.dumps(index, indent=4))

    def _flush(self) -> None:
        self._shards.append(list(self._pending))
        # By way of a file of Python's, whose errors say why.
        with self._unnamed(len(self._shards)).open("wb") as file:
            mx.save_safetensors(file, self._pending, metadata={"format": "mlx"})
            file.flush()
            sync_file(file.fileno())
        self._pending = {}
        mx.clear_cache()

    def _unnamed(self, number: int) -> Path:
        """A file's place until it is known how many there are."""
        return self._folder / f"{number}.part"
