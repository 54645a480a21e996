"""The weights of a checkpoint: whether they fit the model, and reading them.

Owns the check of every name and shape. Reads safetensors only: nothing is unpickled and no code
from a checkpoint runs.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import mlx.core as mx

from metal_gen.backend import DTYPE_BYTES, dtype_named
from metal_gen.checkpoint.safetensors_header import TensorInfo, read_header
from metal_gen.checkpoint.weight_files import find_weights
from metal_gen.errors import CheckpointError
from metal_gen.models.config import ModelConfig
from metal_gen.models.language_part import WITH_OTHER_PARTS, language_name
from metal_gen.models.parameters import Shape, ShapeRecorder
from metal_gen.models.registry import builder_for
from metal_gen.models.transformer import Transformer

# Dtypes of the format that MLX cannot read, not even past.
UNREADABLE = frozenset({"F64", "F4", "F6_E2M3", "F6_E3M2", "F8_E5M2", "F8_E8M0"})
DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
LISTED_PROBLEMS = 6


class WeightFiles:
    """The tensors of a checkpoint, known by their headers and checked against the model.

    Args:
        folder: The checkpoint.
        config: Its model.

    Raises:
        CheckpointError: A file is damaged, or tensors are missing, left over, misshapen or of a
            dtype that is not read.
    """

    def __init__(self, folder: Path, config: ModelConfig) -> None:
        self.config = config
        self.tensors: dict[str, TensorInfo] = {}
        for path in find_weights(folder):
            self.tensors.update(_language_part(config, read_header(path)))
        if config.num_hidden_layers > len(self.tensors):
            raise CheckpointError(
                f"the weights in {folder} do not fit its config.json: "
                f"{len(self.tensors)} tensors cannot make {config.num_hidden_layers} layers"
            )
        recorder = ShapeRecorder({name: info.shape for name, info in self.tensors.items()})
        builder_for(config.model_type)(config, recorder)
        self.expected = recorder.shapes
        self._requests = recorder.requests
        _check(folder, self.tensors, self.expected, tied=config.tie_word_embeddings)

    @property
    def dtype(self) -> str:
        """The dtype that most of the weights are stored in."""
        sizes: dict[str, int] = {}
        for name in self.expected:
            info = self.tensors[name]
            sizes[info.dtype] = sizes.get(info.dtype, 0) + info.nbytes
        return DTYPES[max(sizes, key=lambda dtype: sizes[dtype])]

    @property
    def num_parameters(self) -> int:
        """Numbers in the model; a tied embedding counts once."""
        return sum(math.prod(shape) for shape in self.expected.values())

    def nbytes(self, dtype: str) -> int:
        """Bytes of the weights in memory, in this dtype."""
        return self.num_parameters * DTYPE_BYTES[dtype]

    def loading_peak_bytes(self, dtype: str) -> int:
        """Most bytes that `load` has in memory: what is done, and what is asked for at one time.

        Parts are joined beside the whole, and what is stored in another dtype is converted beside itself.
        """
        done = peak = 0
        for request in self._requests:
            parts = [self.tensors[name] for name in request.names]
            nbytes = sum(math.prod(part.shape) for part in parts) * DTYPE_BYTES[dtype]
            beside = nbytes if request.is_copied else 0
            if any(DTYPES[part.dtype] != dtype for part in parts):
                beside += max(part.nbytes for part in parts)
            done += nbytes
            peak = max(peak, done + beside)
        return peak

    def load(self, dtype: str) -> Transformer:
        """Read the weights and build the model.

        Args:
            dtype: `float32`, `bfloat16` or `float16`; weights stored otherwise are converted.
        """
        reader = _WeightReader(self.tensors, dtype_named(dtype))
        return builder_for(self.config.model_type)(self.config, reader)


class _WeightReader:
    """A source of parameters that reads, converts and joins tensors one by one.

    Each is computed before the next is asked for, so that besides the finished weights memory
    holds the parts of one tensor only.
    """

    def __init__(self, tensors: Mapping[str, TensorInfo], dtype: mx.Dtype) -> None:
        self.tensors = tensors
        self.dtype = dtype
        self.arrays: dict[str, mx.array] = {}
        for path in sorted({info.path for info in tensors.values()}):
            try:
                loaded = mx.load(str(path))
            except RuntimeError as error:
                raise CheckpointError(f"MLX cannot read {path}: {error}") from error
            assert isinstance(loaded, dict)
            self.arrays.update(loaded)

    def tensor(self, name: str, *shape: int) -> mx.array:
        """Read one tensor; its shape has been checked."""
        array = self.arrays.pop(self.tensors[name].name).astype(self.dtype)
        mx.eval(array)
        return array

    def turned(self, name: str, *shape: int) -> mx.array:
        """Read one tensor and exchange its last two axes."""
        array = mx.contiguous(self.tensor(name).swapaxes(-1, -2))
        mx.eval(array)
        return array

    def shape_of(self, name: str) -> Shape | None:
        """As the file's header says."""
        return self.tensors[name].shape if name in self.tensors else None

    def stack(self, rows: dict[str, int], *columns: int, axis: int = 0) -> mx.array:
        """Read several tensors and join them."""
        parts = [self.tensor(name) for name in rows]
        joined = mx.concatenate(parts, axis) if len(parts) > 1 else parts[0]
        del parts
        mx.eval(joined)
        return joined


def _language_part(config: ModelConfig, stored: dict[str, TensorInfo]) -> dict[str, TensorInfo]:
    """The tensors without those of other parts, which are never read, by the names of a text model."""
    if config.model_type not in WITH_OTHER_PARTS:
        return stored
    named = {language_name(name): info for name, info in stored.items()}
    return {name: info for name, info in named.items() if name is not None}


def _check(
    folder: Path, tensors: Mapping[str, TensorInfo], expected: Mapping[str, Shape], *, tied: bool
) -> None:
    """Compare what the files hold with what the model needs; report everything at once."""
    problems = [f"{name} is missing" for name in expected if name not in tensors]
    for name, shape in expected.items():
        info = tensors.get(name)
        if info is None:
            continue
        if info.shape != shape:
            problems.append(
                f"{info.name} in {info.path.name} is {_shape(info.shape)} "
                f"where config.json makes it {_shape(shape)}"
            )
        elif info.dtype not in DTYPES:
            problems.append(
                f"{info.name} in {info.path.name} is stored as {info.dtype}, "
                f"and only {', '.join(DTYPES)} are read"
            )
    problems += [
        f"{info.name} in {info.path.name} is stored as {info.dtype}, which MLX does not read"
        for name, info in tensors.items()
        if name not in expected and info.dtype in UNREADABLE
    ]
    problems += [
        f"{info.name} in {info.path.name} has no place in the model"
        for name, info in tensors.items()
        if not _expected(name, expected, tied)
    ]
    if problems:
        listed = "; ".join(problems[:LISTED_PROBLEMS])
        more = len(problems) - LISTED_PROBLEMS
        raise CheckpointError(
            f"the weights in {folder} do not fit its config.json: {listed}"
            + (f"; and {more} more" if more > 0 else ""),
            "the checkpoint is incomplete, or its config.json belongs to another model",
        )


def _expected(name: str, expected: Mapping[str, Shape], tied: bool) -> bool:
    """Old checkpoints store rotary frequencies, and tied ones may repeat the embedding as head."""
    return name in expected or name.endswith("rotary_emb.inv_freq") or (tied and name == "lm_head.weight")


def _shape(shape: Shape) -> str:
    return " x ".join(map(str, shape)) or "a scalar"
