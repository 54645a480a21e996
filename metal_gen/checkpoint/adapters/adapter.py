"""Opens an adapter's folder: the matrices that it adds to, and the tensors that replace the model's own.

Opening reads adapter_config.json and the header of the weights. Nothing is unpickled. `fit` checks whether
an adapter fits a model.
"""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from metal_gen.checkpoint.adapters import mlx_lm as mlx_adapter
from metal_gen.checkpoint.adapters import peft as peft_adapter
from metal_gen.checkpoint.adapters.low_rank import LowRank
from metal_gen.checkpoint.adapters.tensors import AdapterTensors
from metal_gen.config.adapters import AdaptersError, split_scale
from metal_gen.errors import CheckpointError, ModelNotFoundError
from metal_gen.files.json_file import read_json
from metal_gen.files.safetensors_header import TensorInfo, read_header
from metal_gen.models.config.fields import FieldReader

CONFIG_FILE = "adapter_config.json"


@dataclass(frozen=True)
class Adapter:
    """An opened adapter.

    Attributes:
        folder: Its folder.
        scale: Scale from the settings.
        weights_file: File with its tensors.
        low_ranks: Low-rank updates of matrices, by their names without `.weight`.
        whole: Tensors that replace the model's, by the model's names.
        moves_tied_head: Whether an update of an embedding also applies to a head that is the same matrix.
    """

    folder: Path
    scale: float
    weights_file: Path
    low_ranks: Mapping[str, LowRank]
    whole: Mapping[str, TensorInfo]
    moves_tied_head: bool

    @property
    def files(self) -> tuple[Path, Path]:
        """All files that are read."""
        return self.folder / CONFIG_FILE, self.weights_file

    @property
    def record(self) -> dict[str, object]:
        """The adapter's entry in JSON output."""
        return {"folder": str(self.folder), "scale": self.scale}

    def renamed(self, rename: Callable[[Mapping[str, Any]], dict[str, Any]]) -> "Adapter":
        """Return the adapter with the model's names for its tensors."""
        return replace(self, low_ranks=rename(self.low_ranks), whole=rename(self.whole))


def open_adapters(given: Sequence[str]) -> tuple[Adapter, ...]:
    """Open the adapters that the settings name.

    Args:
        given: `FOLDER` or `FOLDER=SCALE`.

    Raises:
        ModelNotFoundError: There is no such folder.
        CheckpointError: An adapter is damaged or not supported.
        AdaptersError: An adapter is given twice, its scale is not a number, or its name is ambiguous.
    """
    adapters = tuple(_open(*_parted(text)) for text in given)
    for folder, count in Counter(adapter.folder.resolve() for adapter in adapters).items():
        if count > 1:
            raise AdaptersError(
                f"the adapter {folder} is given {count} times", "give it once, with the sum of its scales"
            )
    return adapters


def _parted(text: str) -> tuple[str, float]:
    """Split a text into folder and scale. The name of a folder may itself look as if it had a scale."""
    folder, scale = split_scale(text)
    if folder == text or not _is_folder(text):
        return folder, scale
    if _is_folder(folder):
        raise AdaptersError(
            f"the adapter {text} is ambiguous: there are folders {folder} and {text}",
            f"give {text}=1 for the latter, or {folder}={scale:e} for the former",
        )
    return text, 1.0


def _is_folder(name: str) -> bool:
    try:
        return Path(name).expanduser().is_dir()
    except (OSError, RuntimeError, ValueError):
        return False


def _open(name: str, scale: float) -> Adapter:
    folder = _folder(name)
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise CheckpointError(
            f"{folder} is not an adapter: it has no {CONFIG_FILE}", "name a folder that PEFT or mlx-lm saved"
        )
    fields = FieldReader(read_json(path), str(path))
    layout = peft_adapter if fields.has("peft_type") else mlx_adapter
    layout.require_supported(fields)
    weights_file = folder / layout.WEIGHTS_FILE
    if not weights_file.is_file():
        raise CheckpointError(
            f"{folder} has no weights: {layout.WEIGHTS_FILE} is missing",
            "only safetensors are supported, not .bin or .npz: save the adapter again as safetensors",
        )
    tensors: AdapterTensors = layout.sort_tensors(read_header(weights_file), fields)
    if tensors.whole and scale != 1:
        info = next(iter(tensors.whole.values()))
        raise CheckpointError(
            f"the adapter {folder} cannot be scaled by {scale:g}: {info.place} replaces the model's own",
            "give it without a scale",
        )
    return Adapter(
        folder=folder,
        scale=scale,
        weights_file=weights_file,
        low_ranks={name: replace(low, scale=low.scale * scale) for name, low in tensors.low_ranks.items()},
        whole=tensors.whole,
        moves_tied_head=layout.MOVES_TIED_HEAD,
    )


def _folder(name: str) -> Path:
    try:
        folder = Path(name).expanduser()
        if folder.is_dir() and os.access(folder, os.R_OK | os.X_OK):
            return folder
        if folder.is_dir():
            problem = "may not be read"
        else:
            problem = "is a file, not a folder" if folder.exists() else "does not exist"
            _require_scale(name)
    except (OSError, RuntimeError, ValueError) as error:
        problem = f"cannot be read: {error}"
    raise ModelNotFoundError(
        f"the adapter {name} {problem}",
        f"give the folder that has {CONFIG_FILE}; `hf download ORG/NAME --local-dir FOLDER` downloads one "
        "from the Hub",
    )


def _require_scale(name: str) -> None:
    """Refuse the name of a folder that is followed by something other than a scale."""
    folder, equals, scale = name.rpartition("=")
    if equals and Path(folder).expanduser().is_dir():
        raise AdaptersError(
            f"the scale of the adapter {folder} is not a number: {scale!r}", f"give one: {folder}=0.5"
        )
