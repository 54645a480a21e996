"""Errors for logits from which no token can be chosen."""

import mlx.core as mx

from metal_gen.errors import CheckpointError, ExitCode


class LogitsError(CheckpointError):
    """The logits contain NaN or plus infinity, or only minus infinity. No token was chosen."""


class NoTokenLeftError(LogitsError):
    """The logits are valid, but the strategy bans every token."""

    exit_code = ExitCode.CONFIGURATION


def no_token(problem: str, logits: mx.array) -> LogitsError:
    """Return the error for a token that could not be chosen.

    Args:
        problem: What failed.
        logits: The model's logits, which tell whether the model or the strategy is the cause.
    """
    # A model may give minus infinity to some tokens. The largest of a row is NaN if any of its logits is.
    if mx.isfinite(logits.max(axis=-1)).all().item():
        return NoTokenLeftError(
            f"{problem}: every token of the vocabulary is banned",
            "ban fewer tokens; min_tokens and ignore_eos ban those that end a text",
        )
    return LogitsError(
        f"{problem}: the logits are not finite",
        "the checkpoint may be damaged; try float32 for model and cache",
    )
