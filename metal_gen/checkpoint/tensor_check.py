"""Compares the tensors of a checkpoint with those that the model reads."""

from collections.abc import Mapping

from metal_gen.checkpoint.documents import Documents
from metal_gen.checkpoint.packed.stored import Expected, shown_problems, shown_shape
from metal_gen.checkpoint.unread_tensors import is_unread
from metal_gen.errors import CheckpointError
from metal_gen.files.safetensors_header import TensorInfo

# Dtypes of safetensors that MLX cannot read. It cannot open a file that contains one either.
UNREADABLE = frozenset({"F64", "F4", "F6_E2M3", "F6_E3M2", "F8_E5M2", "F8_E8M0"})
LISTED_PROBLEMS = 2


def require_tensors(
    documents: Documents, tensors: Mapping[str, TensorInfo], expected: Mapping[str, Expected], *, tied: bool
) -> None:
    """Compare the files with what the model needs, and report all problems at once.

    Args:
        documents: Documents of the checkpoint, for messages.
        tensors: The tensors in the files, by the model's names.
        expected: The tensors that the model reads.
        tied: Whether the embedding is also the head.

    Raises:
        CheckpointError: Tensors are missing, unknown, of a wrong shape or of an unsupported dtype.
    """
    problems = [f"{documents.stored_name(name)} is missing" for name in expected if name not in tensors]
    for name, wanted in expected.items():
        info = tensors.get(name)
        if info is None:
            continue
        if info.shape != wanted.shape:
            problems.append(
                f"{info.place} is {shown_shape(info.shape)}, "
                f"but {documents.config_name} requires {shown_shape(wanted.shape)}"
            )
        elif info.dtype not in wanted.dtypes:
            problems.append(
                f"{info.place} is stored as {info.dtype}, and only {', '.join(wanted.dtypes)} are supported"
            )
    problems += [
        f"{info.place} is stored as {info.dtype}, which MLX cannot read"
        for name, info in tensors.items()
        if name not in expected and info.dtype in UNREADABLE
    ]
    problems += [
        f"{info.place} has no place in the model"
        for name, info in tensors.items()
        if name not in expected and not is_unread(name, expected, tied=tied)
    ]
    if problems:
        raise misfit(documents, shown_problems(problems, LISTED_PROBLEMS))


def misfit(documents: Documents, problem: str) -> CheckpointError:
    """Return the error for tensors that do not fit the configuration."""
    return CheckpointError(
        f"the weights in {documents.path} do not fit its {documents.config_name}: {problem}",
        f"the checkpoint is incomplete, or its {documents.config_name} belongs to another model",
    )
