"""Guesses with a second, smaller model of the same vocabulary.

The draft model has a cache of its own, which follows the text: before each round it takes back the guesses
that were refused, and computes the tokens that it has not seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx

from metal_gen.cache.common_prefix import common_prefix_length
from metal_gen.cache.hybrid import new_cache
from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.device.backend import compiles_steps, runs_on_cpu
from metal_gen.engine.decoder import Decoder
from metal_gen.models.cache_size import cache_size
from metal_gen.models.kernels.chosen import NO_KERNELS, choose_kernels
from metal_gen.models.kernels.fitted import fitted
from metal_gen.models.transformer import Transformer
from metal_gen.speculation.guess_chain import draw_in_turn
from metal_gen.speculation.planned import GuessMemory
from metal_gen.speculation.source import GuessDraw, Guesses, Room, RunningPass, Wanted

NAME = "draft"
# So small that the prompt takes less working memory than the target's own chunks.
CHUNK_SIZE = 256
# More new tokens than a round leaves are those of a prompt.
MOST_ROWS = 8
# Of the work that is queued ahead on a GPU: a few layers of such a chunk.
AHEAD_BYTES = 64 << 20


@dataclass(frozen=True)
class PlannedDraft:
    """A checked draft model.

    Args:
        checkpoint: The opened checkpoint.
        dtype: Dtype of computation.
        cache_dtype: Dtype of keys and values.
        most_guesses: Most guesses in a pass.
        chunk_size: Most tokens computed at once.
        compile: Whether to compile the decode step, as the setting says.
        kernels: Whether kernels may be used.
    """

    checkpoint: Checkpoint
    dtype: str
    cache_dtype: str
    most_guesses: int
    chunk_size: int = CHUNK_SIZE
    compile: str = "off"
    kernels: bool = True

    @property
    def memory(self) -> GuessMemory:
        """Memory of weights, states and cache."""
        weights = self.checkpoint.weights
        weights_bytes = weights.nbytes(self.dtype)
        one = cache_size(self.checkpoint.config, max_seq_len=1, dtype=self.cache_dtype)
        return GuessMemory(
            fixed_bytes=weights_bytes + one.nbytes - one.bytes_per_token,
            bytes_per_token=one.bytes_per_token,
            most_guesses=self.most_guesses,
            loading_bytes=max(weights.loading_peak_bytes(self.dtype) - weights_bytes, 0),
        )

    def load(self, target: Transformer, capacity: int, *, ahead_bytes: int | None = None) -> "DraftSource":
        """Read the weights, and allocate a cache of so many positions."""
        return DraftSource(self.load_decoder(capacity, ahead_bytes=ahead_bytes), target.config.vocab_size)

    def load_decoder(self, capacity: int, *, ahead_bytes: int | None = None) -> Decoder:
        """Return the draft model with a cache of its own."""
        weights, config = self.checkpoint.weights, self.checkpoint.config
        kernels = NO_KERNELS
        if self.kernels:
            dtypes = self.dtype, self.cache_dtype
            kernels = choose_kernels(
                config, *dtypes, has_head_norms=weights.has_head_norms, packings=weights.packings
            )
        return Decoder(
            fitted(weights.load(self.dtype), kernels),
            new_cache(cache_size(config, max_seq_len=capacity, dtype=self.cache_dtype)),
            chunk_size=self.chunk_size,
            ahead_bytes=None if runs_on_cpu() else min(ahead_bytes or AHEAD_BYTES, AHEAD_BYTES),
            compiles=compiles_steps(self.compile, has_kernel=kernels.attention.by_kernel),
        )


class DraftSource:
    """Implements `GuessSource`.

    Args:
        decoder: Draft model with its own cache.
        vocab_size: Vocabulary size of the target.
    """

    name = NAME
    needs_hidden = False

    def __init__(self, decoder: Decoder, vocab_size: int) -> None:
        self._decoder = decoder
        self._vocab_size = vocab_size
        self._ids: list[int] = []
        # Leading tokens of the text that the cache holds. After them it may hold guesses.
        self._seen = 0
        self._guesses: mx.array | None = None

    @property
    def compiled_count(self) -> int:
        """See `GuessSource`."""
        return self._decoder.compiled_count

    def begin(self, prompt: Sequence[int], kept: int) -> None:
        """Keep what the prompt shares with the text before. The rest waits for the first guess."""
        self._seen = min(common_prefix_length(self._ids, prompt), self._seen)
        self._ids = list(prompt)
        self._guesses = None

    def prefilled(self, hidden: mx.array) -> None:
        """Do nothing: the draft model has states of its own."""

    def expects(self, wanted: Wanted) -> bool:
        """There are always guesses."""
        return wanted(self.name)

    def guess(self, room: Room, draw: GuessDraw) -> Guesses | None:
        """Catch up with the text, then draw one guess after another."""
        count = room(self.name)
        if count == 0:
            return None

        def following(guess: mx.array, place: int) -> mx.array:
            return draw(self._fitted(self._decoder.step(guess)), place)

        first = draw(self._fitted(self._catch_up()), 0)
        waits = not self._decoder.hands_over_early
        self._guesses = draw_in_turn(first, following, count, waits=waits)
        return Guesses(self._guesses, self.name)

    def guess_after(self, running: RunningPass, choose: Room) -> None:
        """Do nothing: guesses need the tokens."""

    def accepted(self, tokens: Sequence[int], hidden: mx.array | None) -> None:
        """Add tokens. The cache already holds those that were guessed, but for the last guess."""
        if self._guesses is not None:
            guesses: list[int] = self._guesses.tolist()  # type: ignore[assignment]
            self._seen += common_prefix_length(guesses[:-1], tokens)
            self._guesses = None
        self._ids += tokens

    def take_back(self, count: int) -> None:
        """Remove tokens."""
        del self._ids[len(self._ids) - count :]
        self._seen = min(self._seen, len(self._ids))
        self._guesses = None

    def end_text(self) -> None:
        """Do nothing: no guesses are made ahead."""

    def _catch_up(self) -> mx.array:
        """Compute the tokens of the text that the cache lacks, and return the logits after them, (1, V)."""
        cache = self._decoder.cache
        position = cache.reachable(min(self._seen, len(self._ids) - 1))
        if not self._writes_in_place(len(self._ids) - position, position):
            # A step may still compute with the cache. Without waiting for it, the next write would copy it.
            cache.evaluate()
        cache.take_back(cache.position - position)
        # Some embeddings are padded further than others.
        largest = self._decoder.model.config.vocab_size - 1
        new = [min(token, largest) for token in self._ids[position:]]
        logits = self._logits_after(new)
        # A hybrid cannot go back to each guess.
        cache.mark()
        self._seen = len(self._ids)
        return logits

    def _writes_in_place(self, tokens: int, position: int) -> bool:
        """Return whether a kernel writes so many tokens to the cache, from a position on."""
        decoder = self._decoder
        is_compiled = tokens == 1 or (tokens <= MOST_ROWS and decoder.can_compile(tokens, position))
        return decoder.hands_over_early and is_compiled

    def _logits_after(self, tokens: Sequence[int]) -> mx.array:
        """Compute tokens in the way that is best for so many of them, and return the logits after them."""
        decoder = self._decoder
        if len(tokens) == 1:
            return decoder.step(mx.array(list(tokens)))
        if len(tokens) > MOST_ROWS:
            return decoder.prefill(tokens)
        # Where nothing is handed over early, as on a CPU, a compiled pass is not worth its function.
        return decoder.extend(tokens, compiles=decoder.hands_over_early)

    def _fitted(self, logits: mx.array) -> mx.array:
        """Cut or fill logits (1, V) to the target's vocabulary."""
        missing = self._vocab_size - logits.shape[-1]
        if missing > 0:
            return mx.pad(logits, [(0, 0), (0, missing)], constant_values=-mx.inf)
        return logits[:, : self._vocab_size]
