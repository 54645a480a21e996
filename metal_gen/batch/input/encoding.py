"""From a row to the token ids of its prompt."""

from dataclasses import dataclass

from metal_gen.batch.input.rows import BatchRow, RowError, RowErrorCode
from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.config.settings import Settings
from metal_gen.config.sources import override_with_arguments
from metal_gen.engine.stopping import LEAST_ANSWER_TOKENS, larger_capacity, require_capacity
from metal_gen.errors import DoesNotFitError, MetalGenError
from metal_gen.generation.memory_plan import MemoryPlan
from metal_gen.generation.prompt import encode_as_set
from metal_gen.text.encoded_prompt import Prompt


@dataclass(frozen=True)
class RowLength:
    """What a row takes.

    Attributes:
        number: Of its line.
        prompt_tokens: Of its prompt, template included.
        max_tokens: Most new tokens; None where the cache alone limits them.
    """

    number: int
    prompt_tokens: int
    max_tokens: int | None

    @property
    def needed_tokens(self) -> int:
        """Positions of the cache that it takes, those of the shortest answer worth having included."""
        return self.prompt_tokens + (self.max_tokens or LEAST_ANSWER_TOKENS) - 1


class RowEncoder:
    """Encodes the prompts of rows.

    Args:
        checkpoint: Gives tokenizer and chat template.
        settings: Of the run; those of a row go before them.
        plan: Says how many tokens a slot holds.

    Attributes:
        longest: What the row takes that takes most, one that does not fit included; None before the first.

    Raises:
        CheckpointError: The tokenizer cannot be built.
    """

    def __init__(self, checkpoint: Checkpoint, settings: Settings, plan: MemoryPlan) -> None:
        checkpoint.tokenizer.expect_many_texts()
        self._checkpoint = checkpoint
        self._settings = settings
        self._capacity = plan.cache.max_seq_len
        # Fewer slots leave room for longer ones, where their number is left open.
        roomiest = plan if settings.batch_size else plan.with_cache(batch_size=1)
        self._largest = roomiest.largest_max_seq_len
        self._most_tokens = max(self._capacity, checkpoint.config.context_length)
        self.longest: RowLength | None = None

    def encode(self, row: BatchRow) -> Prompt | RowError:
        """Encode a row's prompt, or say why it cannot be run."""
        try:
            in_force = override_with_arguments(self._settings, row.settings)
            prompt = encode_as_set(self._checkpoint, row.prompt, in_force, most_tokens=self._most_tokens)
            self._note(RowLength(row.number, len(prompt.ids), in_force.max_tokens))
            require_capacity(len(prompt.ids), in_force.max_tokens, self._capacity, most=self._largest)
        except DoesNotFitError as error:
            return failed_row(row, error, RowErrorCode.DOES_NOT_FIT)
        except MetalGenError as error:
            # A template's refusal or a text that needs tokens which the model lacks is the row's matter too.
            return failed_row(row, error)
        return prompt

    def capacity_for(self, length: RowLength) -> int | None:
        """A `max_seq_len` that leaves a row room for its answer; None where the machine has none."""
        return larger_capacity(length.prompt_tokens, length.max_tokens, self._largest)

    def _note(self, length: RowLength) -> None:
        if self.longest is None or length.needed_tokens > self.longest.needed_tokens:
            self.longest = length


def failed_row(
    row: BatchRow, error: MetalGenError, code: RowErrorCode = RowErrorCode.INVALID_REQUEST
) -> RowError:
    """Say that a row failed, and why."""
    return RowError(row.number, row.id, row.key, row.form, error.message, row.carried, code, error.hint)
