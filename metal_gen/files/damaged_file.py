"""The error for a damaged file of a checkpoint."""

from pathlib import Path

from metal_gen.errors import CheckpointError


def damaged(path: Path, problem: str) -> CheckpointError:
    """Return the error that refuses a file."""
    return CheckpointError(f"{path} is damaged: {problem}", "download or copy the file again")
