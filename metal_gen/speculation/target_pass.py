"""Passes of the target model over the last tokens of a text and the guesses after them.

On a GPU all tokens go through the model together, which costs little more than one. There, products of
several rows may round differently from those of one row. On a CPU, where several rows cost as much as so many
passes, tokens are computed one after another, as plain decoding does, and the text is the same to the last
token.

Axes: R rows to draw from, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx

from metal_gen.device.extra_memory import wait_for_release
from metal_gen.engine.compiled.rows import filled_up
from metal_gen.engine.decoder import Decoder
from metal_gen.engine.last_step import LastStep
from metal_gen.engine.rows_pass import run_rows
from metal_gen.sampling.draw_rule import Draw
from metal_gen.sampling.sampler import Sampler
from metal_gen.speculation.row_draws import RowDraws, RowLimits, draw_rows, from_draws
from metal_gen.speculation.source import Guesses, RunningPass

# Those of a plain step.
NO_GUESSES = Guesses((), "")


@dataclass
class TargetPass:
    """A pass that has been built.

    Attributes:
        index: Index of the first token to draw.
        guesses: The guesses that it verifies.
        rows: Number of tokens of a pass over guesses: the last token, guesses, and what fills it up. Those
            that are not kept are taken back. 1 without guesses.
        filled: Number of guesses that it was filled up to, at least; 0 if it was not.
        draws: Draws of the tokens after the known ones and after each guess; None until a guide was asked.
        logits: Logits to draw from, (R, V), if there are no draws yet.
        hidden: Hidden states that gave the logits, (R, hidden); None if they are not needed.
        is_usual: Whether it adds one token and guesses to the cache, rather than a prompt or forced tokens.
        is_in_place: Whether a kernel writes to the cache, whatever else still reads it.
    """

    index: int
    guesses: Guesses = NO_GUESSES
    rows: int = 1
    filled: int = 0
    draws: RowDraws | None = None
    logits: mx.array | None = None
    hidden: mx.array | None = None
    is_usual: bool = True
    is_in_place: bool = False


class TargetPasses:
    """Builds the passes of one text.

    Args:
        decoder: Decoder of the target model.
        sampler: Sampler of the text.
        most_rows: Most tokens of a pass over guesses.
        needs_hidden: Whether passes over guesses keep hidden states.
        rows_apart: Whether to compute tokens one after another.
    """

    def __init__(
        self, decoder: Decoder, sampler: Sampler, *, most_rows: int, needs_hidden: bool, rows_apart: bool
    ) -> None:
        self._decoder = decoder
        self._sampler = sampler
        self._most_rows = most_rows
        self._needs_hidden = needs_hidden
        self._rows_apart = rows_apart
        self._last = LastStep(decoder)

    def ahead(self, draw: Draw, *, is_guided: bool) -> TargetPass:
        """Build the plain step after a draw that is not computed yet, and add the token to the sampler."""
        self._last.begin()
        self._sampler.accept(draw)
        return self._plain(draw.token, draw.index + 1, is_guided=is_guided)

    def drop_ahead(self) -> None:
        """Take back a step from `ahead`. The sampler keeps the token."""
        self._last.drop(is_running=True)
        self._last.keep()

    def keep_ahead(self) -> None:
        """Keep a step from `ahead`."""
        self._last.keep()

    def after(self, known: Sequence[int], index: int, *, is_guided: bool) -> TargetPass:
        """Build a pass without guesses.

        Args:
            known: Token ids that the cache lacks, at least one.
            index: Index of the token to draw.
            is_guided: Whether a guide is asked before the draw.
        """
        if len(known) == 1:
            return self._plain(mx.array(list(known), mx.int32), index, is_guided=is_guided)
        return TargetPass(index, logits=self._decoder.extend_in_passes(known), is_usual=False)

    def over(
        self, token: int, index: int, guesses: Guesses, allowed: RowLimits, filled: int = 0
    ) -> TargetPass:
        """Build a pass over a token that the cache lacks and guesses after it.

        Args:
            token: Id of the token.
            index: Index of the first token to draw.
            guesses: Guesses of the tokens after it.
            allowed: For each draw, the tokens to draw from; empty without a guide.
            filled: Number of guesses to fill a compiled pass up to, at least.
        """
        count = guesses.count
        rows, is_in_place = filled_up(max(count, filled) + 1, self._most_rows), False
        if self._rows_apart:
            rows, filled = count + 1, 0
            draws, hidden = self._apart(_joined(token, guesses, rows), index, allowed)
        elif self._decoder.compiled_rows is not None and rows <= self._decoder.cache.remaining:
            draws, hidden = self._compiled(_joined(token, guesses, rows), count + 1, index, allowed)
            is_in_place = self._decoder.hands_over_early
        else:
            rows, filled = count + 1, 0
            draws, hidden = self._together(_joined(token, guesses, rows), index, allowed)
        return TargetPass(index, guesses, rows, filled, draws, hidden=hidden, is_in_place=is_in_place)

    def running(self, built: TargetPass) -> RunningPass | None:
        """Return a pass over guesses for its source; None if its draws do not follow the rule alone."""
        draws, hidden = built.draws, built.hidden
        if hidden is None or not built.is_in_place or draws is None or draws.draws or draws.allowed:
            return None
        return RunningPass(built.guesses, draws.outcomes, hidden, self._sampler, built.index)

    def _compiled(
        self, tokens: mx.array, count: int, index: int, allowed: RowLimits
    ) -> tuple[RowDraws, mx.array | None]:
        """Compute all tokens in a compiled pass, of which the first `count` are read."""
        sampler = self._sampler
        draws = None if allowed or sampler.rule.logprobs is not None else sampler.rule_draws(index)
        rows = self._decoder.run_compiled_rows(tokens, draws, count=count, needs_hidden=self._needs_hidden)
        if rows.outcomes is not None:
            return RowDraws(rows.logits, index, rows.outcomes, ()), rows.hidden
        return draw_rows(rows.logits[:count], sampler, index, tokens[1:count], allowed), rows.hidden

    def _together(self, tokens: mx.array, index: int, allowed: RowLimits) -> tuple[RowDraws, mx.array | None]:
        """Compute all tokens in one pass."""
        model = self._decoder.model
        hidden = run_rows(model, tokens, self._decoder.cache)
        draws = draw_rows(model.logits(hidden), self._sampler, index, tokens[1:], allowed)
        return draws, hidden if self._needs_hidden else None

    def _apart(self, tokens: mx.array, index: int, allowed: RowLimits) -> tuple[RowDraws, mx.array | None]:
        """Compute the tokens one by one, each with the operations of a plain step."""
        decoder, states, draws = self._decoder, [], []
        for row in range(tokens.size):
            token = tokens[row : row + 1]
            if row:
                self._sampler.note(token)
            if self._needs_hidden:
                states.append(decoder.model(token[None], decoder.cache)[:, -1])
                logits = decoder.model.logits(states[-1])
                draw = self._sampler.draw(logits, index + row, allowed[row] if allowed else None)
            elif allowed:
                draw = self._sampler.draw(decoder.step(token), index + row, allowed[row])
            else:
                draw = decoder.draw_next(token, self._sampler, index + row)
            # Without waiting, a token would copy the cache, which would still be in use.
            wait_for_release()
            mx.eval(draw.results)
            draws.append(draw)
        self._sampler.take_back(tokens.size - 1)
        return from_draws(draws), mx.concatenate(states) if self._needs_hidden else None

    def _plain(self, token: mx.array, index: int, *, is_guided: bool) -> TargetPass:
        is_in_place = self._decoder.hands_over_early
        if is_guided:
            return TargetPass(index, logits=self._decoder.step(token), is_in_place=is_in_place)
        draw = self._decoder.draw_next(token, self._sampler, index)
        return TargetPass(index, draws=from_draws([draw]), is_in_place=is_in_place)


def _joined(token: int, guesses: Guesses, rows: int) -> mx.array:
    """Return a token, the guesses after it, and what fills them up to a number of rows: (rows,) int32."""
    tokens = guesses.tokens
    filling = [0] * (rows - 1 - len(tokens))
    if not isinstance(tokens, mx.array):
        return mx.array([token, *tokens, *filling], mx.int32)
    parts = [mx.array([token], mx.int32), tokens.astype(mx.int32)]
    return mx.concatenate([*parts, mx.array(filling, mx.int32)] if filling else parts)
