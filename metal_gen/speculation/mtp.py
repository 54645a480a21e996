"""Guesses with the model's own layers for multi-token prediction (mtp).

The layers see pairs: the target's state at a position, and the token after it. They keep keys and values of
all pairs of the text. Pairs of guesses come from the layers' own states, and are taken back after each round:
an accepted guess is computed again from the target's state.

Axes: L tokens of a chunk, N pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import mlx.core as mx

from metal_gen.cache.common_prefix import common_prefix_length
from metal_gen.cache.config import KVCacheConfig
from metal_gen.cache.kv_cache import KVCache
from metal_gen.checkpoint.mtp_weights import MtpWeights
from metal_gen.device.backend import compiles_steps
from metal_gen.device.extra_memory import wait_for_release
from metal_gen.engine.compiled.heads import CompiledHeads, Pairs
from metal_gen.models.kernels.fitted import fitted_heads
from metal_gen.models.mtp import MtpHeads
from metal_gen.models.transformer import Transformer
from metal_gen.speculation.guess_chain import draw_in_turn
from metal_gen.speculation.planned import GuessMemory
from metal_gen.speculation.source import GuessDraw, Guesses, Room, RunningPass, Wanted

NAME = "mtp"
# Pairs that wait for the next guess. More are computed at once.
MOST_WAITING = 64
# Most guesses to make after a pass that is not read yet.
MOST_FOLLOWING = 16


@dataclass(frozen=True)
class PlannedMtp:
    """Checked layers for multi-token prediction.

    Args:
        weights: Their weights, of which there are some.
        dtype: Dtype of computation.
        cache: Size of a cache of one layer, for one position.
        most_guesses: Most guesses in a pass.
        compile: Whether to compile guesses, as the setting says.
    """

    weights: MtpWeights
    dtype: str
    cache: KVCacheConfig
    most_guesses: int
    compile: str = "off"

    @property
    def memory(self) -> GuessMemory:
        """Memory of weights and cache."""
        return GuessMemory(
            fixed_bytes=self.weights.nbytes(self.dtype),
            bytes_per_token=self.cache.bytes_per_token,
            most_guesses=self.most_guesses,
            loading_bytes=self.weights.reading_bytes(self.dtype),
        )

    def load(self, target: Transformer, capacity: int, *, ahead_bytes: int | None = None) -> "MtpSource":
        """Read the weights, and allocate a cache of so many positions."""
        cache = KVCache(replace(self.cache, max_seq_len=capacity))
        compiles = target.has_kernel and compiles_steps(self.compile, has_kernel=True)
        rows = self.most_guesses + 1 if compiles else None
        return MtpSource(target, self.weights.load(self.dtype), cache, compiled_rows=rows)


@dataclass(frozen=True)
class _Stretch:
    """Pairs of successive positions of the text, from `first` on, in the cache from `place` on."""

    first: int
    place: int


class MtpSource:
    """Implements `GuessSource`. The pair of position t has the state there, and token t + 1.

    Positions for which no states came have no pair; the cache has no gap there.

    Args:
        target: Model that the layers belong to.
        heads: The layers.
        cache: Empty cache of one layer.
        compiled_rows: To compile the guesses, most pairs that a pass with guesses usually leaves; else None.
    """

    name = NAME
    needs_hidden = True

    def __init__(
        self, target: Transformer, heads: MtpHeads, cache: KVCache, *, compiled_rows: int | None = None
    ) -> None:
        self._target = target
        self._heads = heads
        self._cache = cache
        self._compiled: CompiledHeads | None = None
        if compiled_rows is not None:
            self._compiled = CompiledHeads(
                target,
                fitted_heads(heads, target),
                cache,
                usual_rows=compiled_rows,
                most_rows=MOST_WAITING,
            )
        self._ids: list[int] = []
        self._prompt_length = self._prefilled = 0
        # State of the last position of the prompt, (1, hidden).
        self._after_prompt: mx.array | None = None
        self._stretches: list[_Stretch] = []
        # Pairs that are not in the cache yet: the position of the first, tokens, and states (N, hidden).
        self._waiting: tuple[int, list[int], list[mx.array]] | None = None
        # The position of a pass's first pair, the pass, and guesses made before its tokens were known.
        self._following: tuple[int, RunningPass, mx.array] | None = None

    @property
    def compiled_count(self) -> int:
        """See `GuessSource`."""
        return 0 if self._compiled is None else self._compiled.count

    def begin(self, prompt: Sequence[int], kept: int) -> None:
        """Keep the pairs that this prompt shares with the text before."""
        common = min(common_prefix_length(self._ids, prompt), kept)
        self._cut(common - 1)
        self._ids = list(prompt)
        self._prompt_length, self._prefilled = len(prompt), kept
        self._after_prompt = None

    def prefilled(self, hidden: mx.array) -> None:
        """Add the pairs of a chunk. The last token of the prompt has none yet."""
        # What computes the states needs its memory until they are there.
        mx.eval(hidden)
        wait_for_release()
        first, length = self._prefilled, hidden.shape[1]
        self._prefilled += length
        tokens = self._ids[first + 1 : first + 1 + length]
        if tokens:
            # The keys and values alone are computed: nothing reads the states.
            self._run(first, tokens, hidden[0, : len(tokens)])
            self._cache.evaluate()
        if self._prefilled == self._prompt_length:
            self._after_prompt = mx.contiguous(hidden[0, -1:])

    def expects(self, wanted: Wanted) -> bool:
        """There are always guesses."""
        return wanted(self.name)

    def guess(self, room: Room, draw: GuessDraw) -> Guesses | None:
        """Guess from the last pair on. Without the state of its position, ask for one."""
        count = room(self.name)
        if (made := self._taken_following(count)) is not None:
            return Guesses(made, self.name)
        if count == 0:
            return None
        if self._next_waiting != len(self._ids) - 1:
            return Guesses((), self.name)
        if (guesses := self._compiled_guesses(draw, count)) is not None:
            return Guesses(guesses, self.name)
        state = self._run_waiting()

        def following(guess: mx.array, place: int) -> mx.array:
            nonlocal state
            state = self._heads(self._target, guess, state, self._cache)
            return draw(self._target.logits(state), place)

        guesses = draw_in_turn(draw(self._target.logits(state), 0), following, count)
        self._cache.take_back(count - 1)
        return Guesses(guesses, self.name)

    def _compiled_guesses(self, draw: GuessDraw, count: int) -> mx.array | None:
        """Guess in one compiled function if that is possible; else return None."""
        assert self._waiting is not None
        first, tokens, states = self._waiting
        if self._compiled is None or not self._compiled.has_room(len(tokens), count):
            return None
        if (draws := draw.by_rule) is None:
            return None
        self._waiting = None
        self._note(first)
        guesses = self._compiled.guess(tokens, _joined(states), draws, count)
        # The device begins while the pass over the guesses is built.
        mx.async_eval(guesses)
        return guesses

    def guess_after(self, running: RunningPass, choose: Room) -> None:
        """Hand the next guesses over behind a pass, so that the device need not wait for its tokens."""
        rows, tokens = running.rows, running.guesses.tokens
        # The layers have seen all pairs before the pass.
        is_next = self._waiting is None and running.guesses.kind == self.name and len(tokens) == rows - 1
        draws = GuessDraw(running.sampler, running.index).by_rule
        if self._compiled is None or draws is None or not is_next or not isinstance(tokens, mx.array):
            return
        if not self._compiled.can_follow(rows, MOST_FOLLOWING):
            return
        if (count := min(choose(self.name), MOST_FOLLOWING)) == 0:
            return
        pairs = Pairs(running.outcomes[:rows], tokens, running.hidden)
        made = self._compiled.guess_after(pairs, draws, count)
        mx.async_eval(made)
        self._following = len(self._ids) - 1, running, made

    def _taken_following(self, count: int) -> mx.array | None:
        """Return so many of the guesses that `guess_after` has made; None if they are of no use."""
        if self._following is None:
            return None
        (position, running, made), self._following = self._following, None
        first, tokens, _ = self._waiting or (0, [], [])
        is_next = first == position and self._next_waiting == len(self._ids) - 1
        is_right = is_next and tokens == running.added
        if not is_right or not 0 < count <= made.size:
            # What comes next writes to the same places.
            self._cache.settle()
            return None
        self._waiting = None
        self._note(first)
        self._cache.claim(len(tokens))
        return made[:count]

    def accepted(self, tokens: Sequence[int], hidden: mx.array | None) -> None:
        """Add the pairs of these tokens, if their states are known."""
        first = len(self._ids) - 1
        if hidden is None and len(self._ids) == self._prompt_length and len(tokens) == 1:
            hidden = self._after_prompt
        self._ids += tokens
        if hidden is None:
            return
        if self._waiting is not None and self._next_waiting != first:
            self._run_waiting()
        start, waiting, states = self._waiting or (first, [], [])
        self._waiting = (start, [*waiting, *tokens], [*states, hidden])
        if len(waiting) + len(tokens) >= MOST_WAITING:
            self._run_waiting()
            self._cache.evaluate()

    def take_back(self, count: int) -> None:
        """Remove the pairs of the last tokens."""
        del self._ids[len(self._ids) - count :]
        self._cut(len(self._ids) - 1)

    def end_text(self) -> None:
        """Drop the guesses after the last pass."""
        self._following = None

    @property
    def _next_waiting(self) -> int:
        """Position after the last pair that waits; -1 if none does."""
        return -1 if self._waiting is None else self._waiting[0] + len(self._waiting[1])

    def _run_waiting(self) -> mx.array:
        """Add the waiting pairs to the cache, and return the state of the last, (1, hidden)."""
        assert self._waiting is not None
        first, tokens, states = self._waiting
        self._waiting = None
        return self._run(first, tokens, _joined(states))[-1:]

    def _run(self, first: int, tokens: list[int], hidden: mx.array) -> mx.array:
        """Add pairs to the cache, and return the states that they give, (N, hidden)."""
        self._note(first)
        return self._heads(self._target, mx.array(tokens), hidden, self._cache)

    def _note(self, first: int) -> None:
        """Note that the pairs of successive positions will be added to the cache."""
        place = self._cache.position
        last = self._stretches[-1] if self._stretches else None
        if last is None or first - last.first != place - last.place:
            self._stretches.append(_Stretch(first, place))

    def _cut(self, end: int) -> None:
        """Keep only the pairs of positions before `end`."""
        self._following = None
        if self._waiting is not None:
            first, tokens, states = self._waiting
            kept = max(end - first, 0)
            hidden = mx.concatenate(states)[:kept]
            self._waiting = (first, tokens[:kept], [hidden]) if kept else None
        place = self._cache.position
        while self._stretches and self._stretches[-1].first >= end:
            place = self._stretches.pop().place
        if self._stretches:
            last = self._stretches[-1]
            place = min(place, last.place + end - last.first)
        # A step may still compute with the cache. Without waiting for it, the next write would copy it.
        self._cache.evaluate()
        self._cache.take_back(self._cache.position - place)


def _joined(states: Sequence[mx.array]) -> mx.array:
    """Return states, (N, hidden) each, as one array."""
    return states[0] if len(states) == 1 else mx.concatenate(list(states))
