"""The errors of metal-gen, with their exit codes in a shell.

Defines the exception types and the exit codes. Does not know MLX or terminals.
"""

from enum import IntEnum
from pathlib import Path

from metal_gen.excerpt import excerpt

# Enough for most paths. Quoted values are shortened where they are quoted; this limit catches the rest.
MOST_LETTERS = 2_000


class ExitCode(IntEnum):
    """Exit codes of the process."""

    DONE = 0
    UNEXPECTED = 1
    USAGE = 2
    CONFIGURATION = 3
    MODEL_NOT_FOUND = 4
    BAD_CHECKPOINT = 5
    DOES_NOT_FIT = 6
    FAILED_ROWS = 7
    OUTPUT_HELD = 8
    INCOMPLETE = 9
    NO_ANSWER = 10
    HUNG_UP = 129
    INTERRUPTED = 130
    CLOSED_PIPE = 141
    TERMINATED = 143


class MetalGenError(Exception):
    """An error with a known cause and, if possible, a remedy.

    Args:
        message: One sentence without a full stop: what failed, then the value that caused it.
        hint: The next command or setting to try; empty if there is none.
    """

    exit_code = ExitCode.UNEXPECTED

    def __init__(self, message: str, hint: str = "") -> None:
        self.message = excerpt(message, MOST_LETTERS)
        self.hint = excerpt(hint, MOST_LETTERS)
        super().__init__(self.message)
        if self.hint:
            # A traceback of a program that uses the library ends with it.
            self.add_note(f"hint: {self.hint}")


class UsageError(MetalGenError):
    """An argument, a flag or a prompt is invalid."""

    exit_code = ExitCode.USAGE


class ConfigError(MetalGenError):
    """A TOML file, an environment variable or a setting is invalid."""

    exit_code = ExitCode.CONFIGURATION


class ModelNotFoundError(MetalGenError):
    """The model is neither on this disk nor available from the Hub."""

    exit_code = ExitCode.MODEL_NOT_FOUND


class CheckpointError(MetalGenError):
    """The checkpoint is damaged, incomplete or not supported."""

    exit_code = ExitCode.BAD_CHECKPOINT


class DoesNotFitError(MetalGenError):
    """The cache, the memory or the disk is too small for the request."""

    exit_code = ExitCode.DOES_NOT_FIT


class OutputHeldError(MetalGenError):
    """Another run is writing the same output."""

    exit_code = ExitCode.OUTPUT_HELD


class NoAnswerError(MetalGenError):
    """A text ended before the model began its answer."""

    exit_code = ExitCode.NO_ANSWER


class IncompleteError(MetalGenError):
    """A text has ended before it was all that its constraint asks for.

    `generation/text_assembly.py` decides whether it has, and `cli/generate/run.py` raises the error.
    """

    exit_code = ExitCode.INCOMPLETE


class BackendError(MetalGenError):
    """MLX cannot be loaded, or is not built for this machine."""


def damaged(path: Path, problem: str) -> CheckpointError:
    """Return the error that refuses a damaged file of a checkpoint."""
    return CheckpointError(f"{path} is damaged: {problem}", "download or copy the file again")
