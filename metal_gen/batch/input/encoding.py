"""From a row to the token ids of its prompt."""

from metal_gen.batch.input.rows import BatchRow, RowError, RowErrorCode
from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.config.settings import Settings
from metal_gen.config.sources import override_with_arguments
from metal_gen.engine.stopping import require_capacity
from metal_gen.errors import DoesNotFitError, MetalGenError, UsageError
from metal_gen.generation.prompt import encode_prompt
from metal_gen.text.chat_template import MessagesRefusedError
from metal_gen.text.encoded_prompt import Prompt


def encode_row(row: BatchRow, checkpoint: Checkpoint, settings: Settings, capacity: int) -> Prompt | RowError:
    """Encode a row's prompt, or say why it cannot be run.

    Args:
        row: Its own settings go before the others.
        checkpoint: Gives tokenizer and chat template.
        settings: Of the run.
        capacity: Tokens that a slot holds.
    """
    try:
        in_force = override_with_arguments(settings, row.settings)
        prompt = encode_prompt(
            checkpoint,
            row.prompt,
            system=in_force.system,
            raw=in_force.raw,
            thinking=in_force.thinking,
            most_tokens=max(capacity, checkpoint.config.context_length),
        )
        require_capacity(len(prompt.ids), in_force.max_tokens, capacity)
    except (UsageError, DoesNotFitError, MessagesRefusedError) as error:
        return failed_row(row, error)
    return prompt


def failed_row(
    row: BatchRow, error: MetalGenError, code: RowErrorCode = RowErrorCode.INVALID_REQUEST
) -> RowError:
    """Say that a row failed, and why."""
    return RowError(row.number, row.id, row.key, row.form, error.message, row.carried, code)
