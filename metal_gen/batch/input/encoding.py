"""Encodes a row's prompt into token ids."""

from dataclasses import dataclass

from metal_gen.batch.input.rows import BatchRow, Row, RowError, RowErrorCode
from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.config.settings import Settings
from metal_gen.config.sources import override_with_arguments
from metal_gen.engine.stopping import LEAST_ANSWER_TOKENS, larger_capacity, require_capacity
from metal_gen.errors import DoesNotFitError, MetalGenError
from metal_gen.generation.guides.making import require_constraint
from metal_gen.generation.memory.plan import MemoryPlan
from metal_gen.generation.prompt import encode_as_set, prefix_as_set
from metal_gen.text.encoded_prompt import Prompt


@dataclass(frozen=True)
class RowLength:
    """The cache positions that a row needs.

    Attributes:
        number: Number of the row's line.
        prompt_tokens: Length of the prompt in tokens, chat template included.
        max_tokens: Maximum number of new tokens; None if only the cache limits it.
    """

    number: int
    prompt_tokens: int
    max_tokens: int | None

    @property
    def needed_tokens(self) -> int:
        """Cache positions for the prompt and the answer; without `max_tokens`, a short useful answer."""
        return self.prompt_tokens + (self.max_tokens or LEAST_ANSWER_TOKENS) - 1


class RowEncoder:
    """Encodes the prompts of rows.

    Args:
        checkpoint: Provides the tokenizer and the chat template.
        settings: Settings of the run; a row's own settings override them.
        plan: Provides the number of tokens per slot.

    Attributes:
        longest: The row that needs the most positions, even if it does not fit; None before the first row.

    Raises:
        CheckpointError: The tokenizer cannot be built.
        UsageError: The prefix file cannot be read.
    """

    def __init__(self, checkpoint: Checkpoint, settings: Settings, plan: MemoryPlan) -> None:
        checkpoint.tokenizer.expect_many_texts()
        self._checkpoint = checkpoint
        self._settings = settings
        self._capacity = plan.cache.max_seq_len
        # If the number of slots is not fixed, fewer slots leave room for longer ones.
        roomiest = plan if settings.batch_size else plan.with_cache(batch_size=1)
        self._largest = roomiest.largest_max_seq_len
        self._most_tokens = max(self._capacity, checkpoint.config.context_length)
        self._prefix = prefix_as_set(settings)
        self.longest: RowLength | None = None

    def encode(self, row: BatchRow) -> Prompt | RowError:
        """Encode a row's prompt, or return why the row cannot be run."""
        try:
            in_force = override_with_arguments(self._settings, row.settings)
            prompt = encode_as_set(
                self._checkpoint, row.prompt, in_force, most_tokens=self._most_tokens, prefix=self._prefix
            )
            self._note(RowLength(row.number, len(prompt.ids), in_force.max_tokens))
            require_constraint(in_force, self._checkpoint)
            require_capacity(len(prompt.ids), in_force.max_tokens, self._capacity, most=self._largest)
        except DoesNotFitError as error:
            return failed_row(row, error, RowErrorCode.DOES_NOT_FIT)
        except MetalGenError as error:
            # A rejection by the template, or a text that needs missing tokens, is an error of the row too.
            return failed_row(row, error)
        return prompt

    def capacity_for(self, length: RowLength) -> int | None:
        """Return a `max_seq_len` with room for the row's answer; None if memory does not allow one."""
        return larger_capacity(length.prompt_tokens, length.max_tokens, self._largest)

    def _note(self, length: RowLength) -> None:
        if self.longest is None or length.needed_tokens > self.longest.needed_tokens:
            self.longest = length


def failed_row(row: Row, error: MetalGenError, code: RowErrorCode = RowErrorCode.INVALID_REQUEST) -> RowError:
    """Return the error of a row that failed."""
    return RowError(row.number, row.id, row.key, row.form, error.message, row.carried, code, error.hint)
