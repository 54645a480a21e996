"""Finds what mlx-lm can load of a checkpoint: its folder, or a copy that metal-gen converts for the time."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.conversion.convert import convert
from metal_gen.conversion.new_folder import NewFolder
from metal_gen.errors import MetalGenError
from metal_gen.excerpt import excerpt


@dataclass(frozen=True)
class MlxLmFolder:
    """A folder that mlx-lm loads.

    Attributes:
        path: The folder.
        note: What to say of it in a report; empty for the checkpoint itself.
    """

    path: Path
    note: str = ""


@contextmanager
def folder_for_mlx_lm(
    checkpoint: Checkpoint, on_progress: Callable[[int, int], None]
) -> Iterator[MlxLmFolder]:
    """Give a folder that mlx-lm loads; a converted copy is removed at the end.

    Args:
        checkpoint: The checkpoint.
        on_progress: Called with the converted bytes and the bytes in all.

    Raises:
        MetalGenError: mlx-lm loads neither the checkpoint nor the copy, or the copy cannot be made.
    """
    problem = _problem_with(checkpoint.folder)
    if problem is None:
        yield MlxLmFolder(checkpoint.folder)
        return
    with TemporaryDirectory(prefix="metal-gen-") as place:
        copy = Path(place) / "converted"
        convert(checkpoint, NewFolder(copy), on_progress=on_progress)
        if (other := _problem_with(copy)) is not None:
            raise MetalGenError(
                f"mlx-lm cannot load {checkpoint.folder}: {problem}; "
                f"nor can it load what metal-gen converts it to: {other}",
                "measure without --compare",
            )
        yield MlxLmFolder(
            copy, f"mlx-lm loads a copy that metal-gen converted, not the checkpoint: {problem}"
        )


def _problem_with(folder: Path) -> str | None:
    """Return why mlx-lm cannot load a folder; None if it can. No weights are read."""
    from mlx_lm.utils import load_model

    try:
        load_model(folder, lazy=True)
    except Exception as error:  # with any exception, the comparison is impossible
        return excerpt(str(error).strip().partition("\n")[0].rstrip(".:") or type(error).__name__)
    return None
