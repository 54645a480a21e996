"""Guesses the next tokens with layers for multi-token prediction: from the last pair of the text on.

Pairs of guesses come from the layers' own states, and are taken back after each round: an accepted guess is
computed again from the target's state.

Axes: L tokens of a chunk, N guesses.
"""

from collections.abc import Sequence

import mlx.core as mx

from metal_gen.cache.common_prefix import common_prefix_length
from metal_gen.cache.kv_cache import KVCache
from metal_gen.device.extra_memory import wait_for_release
from metal_gen.models.kernels.fitted import fitted_heads
from metal_gen.models.mtp import MtpHeads
from metal_gen.models.transformer import Transformer
from metal_gen.speculation.guess_chain import draw_in_turn
from metal_gen.speculation.mtp.compiled import CompiledHeads, Pairs
from metal_gen.speculation.mtp.pairs import TextPairs
from metal_gen.speculation.source import GuessDraw, Guesses, Room, RunningPass, Wanted

NAME = "mtp"
# Pairs that wait for the next guess. More are computed at once.
MOST_WAITING = 64
# Most guesses to make after a pass that is not read yet.
MOST_FOLLOWING = 16


class MtpSource:
    """Implements `GuessSource`.

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
        self._pairs = TextPairs(target, heads, cache, MOST_WAITING)
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
            self._pairs.run(first, tokens, hidden[0, : len(tokens)])
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
        if not self._pairs.wait_up_to(len(self._ids) - 1):
            return Guesses((), self.name)
        if (guesses := self._compiled_guesses(draw, count)) is not None:
            return Guesses(guesses, self.name)
        state = self._pairs.run_waiting()

        def following(guess: mx.array, place: int) -> mx.array:
            nonlocal state
            state = self._heads(self._target, guess, state, self._cache)
            return draw(self._target.logits(state), place)

        guesses = draw_in_turn(draw(self._target.logits(state), 0), following, count)
        self._cache.take_back(count - 1)
        return Guesses(guesses, self.name)

    def _compiled_guesses(self, draw: GuessDraw, count: int) -> mx.array | None:
        """Guess in one compiled function if that is possible; else return None."""
        assert self._pairs.waiting is not None
        if self._compiled is None or not self._compiled.has_room(len(self._pairs.waiting.tokens), count):
            return None
        if (draws := draw.by_rule) is None:
            return None
        waiting = self._pairs.take_waiting()
        guesses = self._compiled.guess(waiting.tokens, waiting.hidden, draws, count)
        # The device begins while the pass over the guesses is built.
        mx.async_eval(guesses)
        return guesses

    def guess_after(self, running: RunningPass, choose: Room) -> None:
        """Hand the next guesses over behind a pass, so that the device need not wait for its tokens."""
        rows, tokens = running.rows, running.guesses.tokens
        # The layers have seen all pairs before the pass.
        is_next = (
            self._pairs.waiting is None and running.guesses.kind == self.name and len(tokens) == rows - 1
        )
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
        waiting, end = self._pairs.waiting, len(self._ids) - 1
        is_right = (
            waiting is not None
            and (waiting.first, waiting.end) == (position, end)
            and waiting.tokens == running.added
        )
        if not is_right or not 0 < count <= made.size:
            # What comes next writes to the same places.
            self._cache.settle()
            return None
        self._cache.claim(len(self._pairs.take_waiting().tokens))
        return made[:count]

    def accepted(self, tokens: Sequence[int], hidden: mx.array | None) -> None:
        """Add the pairs of these tokens, if their states are known."""
        first = len(self._ids) - 1
        if hidden is None and len(self._ids) == self._prompt_length and len(tokens) == 1:
            hidden = self._after_prompt
        self._ids += tokens
        if hidden is not None:
            self._pairs.add(first, tokens, hidden)

    def take_back(self, count: int) -> None:
        """Remove the pairs of the last tokens."""
        del self._ids[len(self._ids) - count :]
        self._cut(len(self._ids) - 1)

    def end_text(self) -> None:
        """Drop the guesses after the last pass."""
        self._following = None

    def _cut(self, end: int) -> None:
        """Keep only the pairs of positions before `end`."""
        self._following = None
        self._pairs.cut(end)
