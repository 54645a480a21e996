"""Checks a stored head that config.json ties to the embedding: it is a copy, or a head of its own.

Names and shapes do not tell which, so the bytes are compared. Few checkpoints store such a head, and in most
of them it is a copy.
"""

from metal_gen.checkpoint.matrix_forms import MatrixForms
from metal_gen.checkpoint.model_tensors import EMBEDDING, HEAD
from metal_gen.errors import CheckpointError
from metal_gen.files.safetensors_header import TensorInfo
from metal_gen.models.config.model_config import ModelConfig

PIECE_BYTES = 1 << 22


def has_own_head(config: ModelConfig, forms: MatrixForms) -> bool:
    """Return whether a complete head is stored that differs from the embedding in numbers or form.

    Raises:
        CheckpointError: A file cannot be read, or the head cannot be used.
    """
    shape = (config.vocab_size, config.hidden_size)
    head = forms.base(HEAD, shape).tensors()
    if not all(name in forms.found for name in head):
        return False
    embedding = forms.base(EMBEDDING, shape).tensors()
    copies = {name: EMBEDDING + name.removeprefix(HEAD) for name in head}
    if set(copies.values()) != set(embedding):
        return True
    return not all(
        other in forms.found and _is_copy(forms.found[name], forms.found[other])
        for name, other in copies.items()
    )


def _is_copy(one: TensorInfo, other: TensorInfo) -> bool:
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    try:
        with one.path.open("rb") as first, other.path.open("rb") as second:
            first.seek(one.offset)
            second.seek(other.offset)
            for begin in range(0, one.nbytes, PIECE_BYTES):
                count = min(PIECE_BYTES, one.nbytes - begin)
                if first.read(count) != second.read(count):
                    return False
    except OSError as error:
        raise CheckpointError(f"cannot read {one.path} or {other.path}: {error.strerror}") from error
    return True
