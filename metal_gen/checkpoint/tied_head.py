"""A head that is stored although config.json ties it to the embedding: a copy, or one of its own.

Which of the two cannot be told from names and shapes, so the bytes are compared. Few checkpoints have such a
head; of those that do, most have a copy.
"""

from metal_gen.checkpoint.matrix_forms import MatrixForms
from metal_gen.checkpoint.model_tensors import EMBEDDING, HEAD
from metal_gen.errors import CheckpointError
from metal_gen.files.safetensors_header import TensorInfo
from metal_gen.models.config.model_config import ModelConfig

PIECE_BYTES = 1 << 22


def has_own_head(config: ModelConfig, forms: MatrixForms) -> bool:
    """Return whether a whole head is stored whose numbers, or whose form, are not those of the embedding.

    Raises:
        CheckpointError: A file cannot be read, or the head cannot be computed with.
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
