"""Log-probabilities from hidden states, a block of rows at a time.

The logits of all rows, (R, V), never exist together: for a long text they would be larger than the model.

Axes: R rows, V vocabulary.
"""

from collections.abc import Sequence

import mlx.core as mx

from metal_gen.device.backend import runs_on_cpu
from metal_gen.device.extra_memory import wait_for_release
from metal_gen.models.transformer import Transformer


def target_logprobs(
    model: Transformer, hidden: mx.array, targets: Sequence[int], block_rows: int
) -> list[float]:
    """Compute the log-probability of one token after each row.

    Args:
        model: Model with its weights.
        hidden: (R, hidden) normalized hidden states, computed.
        targets: R token ids.
        block_rows: Rows whose logits are computed together.

    Returns:
        R natural logarithms; a value is not finite if the logits are not.
    """
    found: list[float] = []
    for begin in range(0, len(targets), block_rows):
        block = slice(begin, begin + block_rows)
        logits = model.logits(hidden[block])
        logprobs = -cross_entropy(logits, mx.array(list(targets[block]), dtype=mx.int32))
        # Computed before the next block is built, so that one block of logits is in memory.
        found += logprobs.tolist()  # type: ignore[arg-type]
        wait_for_release()
    return found


def cross_entropy(logits: mx.array, targets: mx.array) -> mx.array:
    """Return logsumexp(logits) - logits[target] in float32, (R,).

    Args:
        logits: (R, V).
        targets: (R,) token ids.
    """
    fused = getattr(mx.fast, "cross_entropy", None)
    if fused is None or runs_on_cpu():
        # On a CPU MLX adds up in the dtype of the logits.
        logits = logits.astype(mx.float32)
    if fused is not None:
        losses: mx.array = fused(logits, targets)
        return losses
    chosen = mx.take_along_axis(logits, targets[:, None], axis=-1)[:, 0]
    return mx.logsumexp(logits, axis=-1) - chosen
