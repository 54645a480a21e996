"""Every way metal-gen can refuse, and the exit code each one has in a shell.

Owns the exception types and the exit codes. Knows nothing of MLX, files or terminals.
"""

from enum import IntEnum

from metal_gen.excerpt import excerpt

# Room for a path of the longest kind there is, in most cases. What is quoted is cut where it is quoted; this
# is for what nobody thought of.
MOST_LETTERS = 2_000


class ExitCode(IntEnum):
    """What the process returns to the shell."""

    DONE = 0
    UNEXPECTED = 1
    USAGE = 2
    CONFIGURATION = 3
    MODEL_NOT_FOUND = 4
    BAD_CHECKPOINT = 5
    DOES_NOT_FIT = 6
    FAILED_ROWS = 7
    OUTPUT_HELD = 8
    NO_ANSWER = 10
    HUNG_UP = 129
    INTERRUPTED = 130
    CLOSED_PIPE = 141
    TERMINATED = 143


class MetalGenError(Exception):
    """A failure that has a cause to name and a way out to offer.

    Args:
        message: One sentence without a full stop: what failed, then the value that caused it.
        hint: The next command or setting to try; empty when there is none.
    """

    exit_code = ExitCode.UNEXPECTED

    def __init__(self, message: str, hint: str = "") -> None:
        self.message = excerpt(message, MOST_LETTERS)
        self.hint = excerpt(hint, MOST_LETTERS)
        super().__init__(self.message)


class UsageError(MetalGenError):
    """An argument, a flag or a prompt that cannot be used."""

    exit_code = ExitCode.USAGE


class ConfigError(MetalGenError):
    """A TOML file, an environment variable or a setting that cannot be used."""

    exit_code = ExitCode.CONFIGURATION


class ModelNotFoundError(MetalGenError):
    """The model is neither on this disk nor to be had from the Hub."""

    exit_code = ExitCode.MODEL_NOT_FOUND


class CheckpointError(MetalGenError):
    """The checkpoint is damaged, incomplete, or of a kind that is not supported."""

    exit_code = ExitCode.BAD_CHECKPOINT


class DoesNotFitError(MetalGenError):
    """The cache, the memory or the disk is too small for what was asked."""

    exit_code = ExitCode.DOES_NOT_FIT


class OutputHeldError(MetalGenError):
    """Another run writes the same output."""

    exit_code = ExitCode.OUTPUT_HELD


class NoAnswerError(MetalGenError):
    """A text has ended before the model has begun its answer."""

    exit_code = ExitCode.NO_ANSWER


class BackendError(MetalGenError):
    """MLX cannot be loaded, or lacks a build for this machine."""
