"""Runs a model over its KV cache: prefill in chunks, then decode one token at a time."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import mlx.core as mx

from metal_gen.cache.kv_cache import KVCache
from metal_gen.device.extra_memory import limited_extra_memory, wait_for_release
from metal_gen.engine.compiled.rows import ROWS, CompiledRows, RowResults, filled_up
from metal_gen.engine.compiled.step import CompiledStep, StepResults
from metal_gen.engine.rows_pass import run_rows
from metal_gen.models.rope import Rope
from metal_gen.models.transformer import Transformer
from metal_gen.sampling.allowed import Allowed
from metal_gen.sampling.compiled_draws import CompiledDraws
from metal_gen.sampling.draw_rule import Draw, RuleDraws
from metal_gen.sampling.sampler import Sampler

if TYPE_CHECKING:
    from metal_gen.engine.expectations import Expectations

PrefillProgress = Callable[[int, int], None]
# A pass of several tokens is compiled when it has been needed so often: it takes as long as some plain ones.
PLAIN_PASSES = 8
# Maximum number of forced tokens added to the cache in one pass.
MOST_FORCED = 64


def most_forced(rope: Rope, position: int, count: int) -> int:
    """Return how many of `count` forced tokens to add in one pass, so that they are as if they were drawn.

    Dynamic RoPE scaling rotates each token of a long text by periods of its own. A pass has one set of them.
    """
    most = min(count, MOST_FORCED)
    return most if rope.periods(position + 1) is rope.periods(position + most) else 1


class Decoder:
    """A model and the cache it writes to.

    Args:
        model: Model with its weights.
        cache: Cache of the model's shape. The text is in its first sequence.
        chunk_size: Most tokens of a prompt, or forced tokens, computed at once; limits memory.
        ahead_bytes: Memory that prefill may use in addition to weights and cache before it waits for the
            device to finish its work; None for no limit.
        compiles: Whether to compile the decode step, if the cache holds one sequence.

    Attributes:
        compiled: The compiled step; None if it is not compiled.
        compiled_rows: Compiled passes over several tokens; None if they are not compiled.
    """

    def __init__(
        self,
        model: Transformer,
        cache: KVCache,
        *,
        chunk_size: int = 512,
        ahead_bytes: int | None = None,
        compiles: bool = False,
    ) -> None:
        self.model = model
        self.cache = cache
        self.chunk_size = chunk_size
        self.ahead_bytes = ahead_bytes
        compiles = compiles and cache.config.batch_size == 1
        self.compiled = CompiledStep(model, cache) if compiles else None
        self.compiled_rows = CompiledRows(model, cache) if compiles else None
        self._compiled_draws = CompiledDraws() if compiles else None
        # How often `extend` has had so many rows.
        self._extended: Counter[int] = Counter()

    def prefill(
        self,
        prompt: Sequence[int],
        on_progress: PrefillProgress | None = None,
        *,
        marks: Collection[int] = (),
        on_hidden: Callable[[mx.array], None] | None = None,
    ) -> mx.array:
        """Add a prompt to the cache.

        Args:
            prompt: Token ids, at least one.
            on_progress: Called after each chunk with the number of tokens done and the total, except after
                the last chunk, which is computed together with the first new token.
            marks: Numbers of prompt tokens after which a chunk ends and the cache is marked. Other texts may
                have the same tokens up to there.
            on_hidden: Called with the hidden states of each chunk, (1, L, hidden), which may not be computed.

        Returns:
            Logits of the token after the prompt, (1, V). They are being computed.

        Raises:
            CacheOverflowError: The prompt does not fit. The cache holds the chunks that came before.
        """
        total = self.cache.position + len(prompt)
        last = 0
        wait_for_release()
        with limited_extra_memory(self.ahead_bytes):
            for end in self._chunk_ends(len(prompt), marks):
                hidden = self.model(mx.array([prompt[last:end]]), self.cache, sequence_length=total)
                if on_hidden is not None:
                    on_hidden(hidden)
                self.cache.evaluate()
                last = end
                if end in marks:
                    self.cache.mark()
                if on_progress is not None:
                    on_progress(end, len(prompt))
            hidden = self.model(mx.array([prompt[last:]]), self.cache, sequence_length=total)
            logits = self.model.logits(hidden[:, -1])
            mx.async_eval(logits)
            if on_hidden is not None:
                on_hidden(hidden)
        return logits

    def _chunk_ends(self, length: int, marks: Collection[int]) -> Iterator[int]:
        """Yield where each chunk ends, except the last one."""
        end = 0
        while (begin := end) < length:
            end = min(begin + self.chunk_size, length, *(mark for mark in marks if mark > begin))
            if end < length:
                yield end

    def step(self, token: mx.array) -> mx.array:
        """Add one token to the cache.

        Args:
            token: Token id, (1,); it need not be computed yet.

        Returns:
            Logits of the next token, (1, V), not computed yet.

        Raises:
            CacheOverflowError: The cache is full. It is unchanged.
        """
        return self.step_in_parts(token).logits

    def step_in_parts(self, token: mx.array) -> StepResults:
        """Add one token to the cache, with the argument and errors of `step`.

        Returns:
            Logits of the next token and, if the step is compiled, its first part; not computed yet.
        """
        self.cache.let_step_run()
        if self.compiled is not None:
            results = self.compiled.step(token)
        else:
            hidden = self.model(token[:, None], self.cache, is_step=True)
            results = StepResults(self.model.logits(hidden[:, -1]))
        self._noted(results.logits)
        return results

    @cached_property
    def expectations(self) -> "Expectations":
        """What guides have allowed one after another, in all texts."""
        from metal_gen.engine.expectations import Expectations

        return Expectations()

    @property
    def hands_over_early(self) -> bool:
        """Whether a step can be handed over while the one before it runs, without a copy of the cache.

        MLX copies a buffer that is still in use before it writes to it. A kernel just writes.
        """
        return self.model.has_kernel

    def _noted(self, result: mx.array) -> mx.array:
        if self.model.has_kernel:
            self.cache.note_step(result)
        return result

    def extend(self, tokens: Sequence[int], *, compiles: bool | None = None) -> mx.array:
        """Add known tokens to the cache in one pass.

        Args:
            tokens: Token ids, at least one.
            compiles: Whether to compile the pass if that is possible; None to do so once passes of its size
                have been needed often.

        Returns:
            Logits of the token after them, (1, V), not yet computed.

        Raises:
            CacheOverflowError: They do not fit; the cache is as before.
        """
        count, cache = len(tokens), self.cache
        rows = self._compiled_length(count, cache.position)
        if rows is not None and compiles is None:
            self._extended[rows] += 1
            compiles = self._extended[rows] > PLAIN_PASSES
        if self.compiled_rows is None or rows is None or not compiles:
            return self.model.logits(run_rows(self.model, mx.array(list(tokens)), cache)[-1:])
        ids = mx.array([*tokens, *[0] * (rows - count)], mx.int32)
        self._wait_for_last_step()
        results = self.compiled_rows.run(ids, count=count, only_last=True)
        # Later tokens overwrite what has filled the pass up: before the pass is noted, nothing has to wait.
        cache.take_back(rows - count)
        return self._noted(results.logits)

    def extend_in_passes(self, tokens: Sequence[int]) -> mx.array:
        """Add any number of known tokens to the cache, as `extend` does, but for all passes together.

        Nobody else may hold the cache's buffers: MLX would copy them.

        Raises:
            CacheOverflowError: They do not fit. The cache holds the passes that came before.
        """
        rest = list(tokens)
        while (most := self._most_forced(len(rest))) < len(rest):
            # What is still in use when the next tokens are added would be copied.
            mx.eval(self.extend(rest[:most]))
            self.cache.evaluate()
            rest = rest[most:]
        return self.extend(rest)

    def _most_forced(self, count: int) -> int:
        return most_forced(self.model.rope, self.cache.position, min(count, self.chunk_size))

    def _wait_for_last_step(self) -> None:
        """Hand the last step over before a compiled pass; wait for it where MLX's own operations write."""
        if self.model.has_kernel:
            self.cache.let_step_run()
        else:
            self.cache.settle()

    def can_compile(self, count: int, position: int) -> bool:
        """Return whether `extend` can compile a pass over so many tokens from a position on."""
        return self._compiled_length(count, position) is not None

    def _compiled_length(self, count: int, position: int) -> int | None:
        """Return the rows of a compiled pass over so many tokens; None if there is none."""
        room = self.cache.config.max_seq_len - position
        # A hybrid cannot take back what fills a pass up.
        rows = filled_up(count, room if self.cache.can_be_cut else count)
        return rows if self.compiled_rows is not None and rows in ROWS else None

    def draw(self, logits: mx.array, sampler: Sampler, index: int, allowed: Allowed | None = None) -> Draw:
        """Start to draw a token; arguments are those of `Sampler.draw`."""
        if self._compiled_draws is None:
            return sampler.draw(logits, index, allowed)
        return self._compiled_draws.draw(logits, sampler, index, allowed)

    def draw_next(
        self, token: mx.array, sampler: Sampler, index: int, allowed: Allowed | None = None
    ) -> Draw:
        """Add one token to the cache and draw the next.

        Args:
            token: Token id, (1,); it need not be computed yet.
            sampler: Sampler of this text.
            index: Index of the new token.
            allowed: Tokens to draw from; None for all.

        Returns:
            The draw, not computed yet.

        Raises:
            CacheOverflowError: The cache is full. It is unchanged.
        """
        if self.compiled is None or not sampler.follows_rule_alone(index):
            return self.draw(self.step(token), sampler, index, allowed)
        self.cache.let_step_run()
        draw = self.compiled.draw_next(token, sampler, index, allowed)
        self._noted(draw.logits)
        return draw

    def run_compiled_rows(
        self,
        tokens: mx.array,
        draws: RuleDraws | None = None,
        *,
        count: int | None = None,
        needs_hidden: bool = False,
    ) -> RowResults:
        """Add successive tokens in a compiled pass; arguments and results are those of `CompiledRows.run`."""
        assert self.compiled_rows is not None
        self._wait_for_last_step()
        rows = self.compiled_rows.run(tokens, draws, count=count, needs_hidden=needs_hidden)
        self._noted(rows.logits)
        return rows

    @property
    def compiled_count(self) -> int:
        """Number of functions compiled so far."""
        counted = (self.compiled, self.compiled_rows, self._compiled_draws)
        return sum(each.count for each in counted if each is not None)
