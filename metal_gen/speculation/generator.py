"""The generation loop with guesses: draw the target's own tokens over guesses, and keep those that agree.

Each token is drawn with the key of its index, after the tokens before it. A guess only decides whether the
pass that draws the next token has already been made. So the text is the one that `generate_tokens` or
`generate_guided_tokens` gives, but for the rounding that `target_pass` describes.
"""

import time
from collections.abc import Iterator, Mapping, Sequence

import mlx.core as mx

from metal_gen.device.extra_memory import wait_for_release
from metal_gen.engine.decoder import Decoder
from metal_gen.engine.generator import GeneratedToken, not_chosen, read_draw
from metal_gen.engine.guide import TextBounds, TokenGuide
from metal_gen.engine.stopping import FinishDetail, token_limit
from metal_gen.sampling.draw_rule import Draw, Status
from metal_gen.sampling.sampler import Sampler
from metal_gen.speculation.row_draws import RowLimits, cut_by_guide, draw_rows
from metal_gen.speculation.source import GuessDraw, Guesses
from metal_gen.speculation.speculation import Speculation
from metal_gen.speculation.target_pass import TargetPass, TargetPasses


def generate_with_guesses(
    decoder: Decoder,
    logits: mx.array,
    sampler: Sampler,
    speculation: Speculation,
    *,
    endings: Mapping[int, FinishDetail],
    max_tokens: int | None = None,
    guide: TokenGuide | None = None,
) -> Iterator[GeneratedToken]:
    """Yield the tokens of `generate_tokens`, or with a guide of `generate_guided_tokens`.

    Args:
        decoder: Decoder whose cache holds the prompt.
        logits: Logits of the token after the prompt, (1, V).
        sampler: Sampler of this text.
        speculation: Guesses; the prompt has begun, and so has the text.
        endings: Tokens that end the text once they have been yielded, and the reason for each.
        max_tokens: Maximum number of tokens to yield; default: until the cache is full.
        guide: Guide of this text; None to allow any token.

    Raises:
        LogitsError: The logits of a step leave no token to choose; the message names the step.
        MetalGenError: The guide has failed.
    """
    limit, limited_by = token_limit(max_tokens, decoder.cache.remaining)
    text = _Text(decoder, sampler, speculation, TextBounds(endings, limit, limited_by, guide))
    items = text.begin(logits)
    while text.is_running:
        yield from items
        items = text.advance()
    yield from items


class _Text:
    """A text and its passes."""

    def __init__(
        self, decoder: Decoder, sampler: Sampler, speculation: Speculation, bounds: TextBounds
    ) -> None:
        self._decoder = decoder
        self._sampler = sampler
        self._speculation = speculation
        self._source = speculation.source
        self._bounds = bounds
        self._passes = TargetPasses(
            decoder,
            sampler,
            most_rows=speculation.depths.most + 1,
            needs_hidden=self._source.needs_hidden,
            rows_apart=speculation.rows_apart,
        )
        self._is_guided = bounds.guide is not None
        self._prompt_tokens = decoder.cache.position
        self._count = 0
        # Seconds since the last pass was read, and the functions compiled before the pending one and by now.
        self._built_s = 0.0
        self._compiled_before = self._compiled = self._compiled_count
        self._pending: TargetPass | None = None
        # With a guide, the plain step after the pending pass. It is held here alone: what holds a step that
        # has been dropped holds the cache too, and MLX copies a cache that is held twice before it writes.
        self._ahead: TargetPass | None = None

    @property
    def is_running(self) -> bool:
        """Whether a pass is being computed."""
        return self._pending is not None

    def begin(self, logits: mx.array) -> list[GeneratedToken]:
        """Start to draw the first token. Return the tokens that must come before it."""
        items = self._bounds.take_forced(0)
        if not items:
            self._launch(TargetPass(0, logits=logits, is_usual=False))
            return items
        known = [item.id for item in items]
        self._sampler.note(known)
        self._add(known, None)
        if items[-1].finish is None:
            self._launch(self._passes.after(known, self._count, is_guided=self._is_guided))
        return items

    def advance(self) -> list[GeneratedToken]:
        """Read the pass that is being computed, and start the next one. Return the new tokens."""
        done, self._pending = self._pending, None
        assert done is not None
        assert done.draws is not None
        begin_s, is_last = time.perf_counter(), self._count + 1 >= self._bounds.limit
        # Where guesses come as a surprise, they wait for the step ahead, which the device already has.
        if not (done.guesses.kind or is_last or self._source.expects(self._speculation.depths.wants)):
            draw = done.draws.one(0)
            if self._is_guided:
                self._ahead = self._passes.ahead(draw, is_guided=True)
            elif (item := self._step(done, draw, begin_s)) is not None:
                return [item]
        items = self._read(done)
        read_s = time.perf_counter()
        self._note(done, len(items), self._built_s + read_s - begin_s)
        drawn = [item.id for item in items]
        self._add(drawn, None if done.hidden is None else done.hidden[: len(drawn)])
        forced: list[int] = []
        if items[-1].finish is None:
            items += self._bounds.take_forced(self._count)
            forced = [item.id for item in items[len(drawn) :]]
            self._sampler.note(forced)
            self._add(forced, None)
        if items[-1].finish is None:
            self._launch(self._next([drawn[-1], *forced]))
            self._built_s = time.perf_counter() - read_s
            self._compiled = self._compiled_count
        else:
            self._drop_ahead()
        return items

    def _step(self, done: TargetPass, draw: Draw, begin_s: float) -> GeneratedToken | None:
        """Read a draw without a guide while the step after it is computed, as `generate_tokens` does.

        Returns:
            Its token. None if the draw has to be repeated, or has failed: then there is no step after it.
        """
        ahead = self._passes.ahead(draw, is_guided=False)
        assert ahead.draws is not None
        if ahead.is_in_place:
            mx.async_eval(ahead.draws.results)
        token, status = read_draw(draw)
        if status != Status.CERTAIN:
            self._passes.drop_ahead()
            self._sampler.take_back(1)
            return None
        read_s = time.perf_counter()
        item = GeneratedToken(token, draw, self._bounds.finish(token, self._count))
        if item.finish is None:
            self._passes.keep_ahead()
            if not ahead.is_in_place:
                wait_for_release()
                mx.async_eval(ahead.draws.results)
            self._pending = ahead
        else:
            self._passes.drop_ahead()
        self._speculation.counts.add_pass(0, 0)
        self._note(done, 1, self._built_s + read_s - begin_s)
        self._built_s = time.perf_counter() - read_s
        self._add([token], None)
        return item

    def _drop_ahead(self) -> None:
        """Drop the step ahead, if there is one."""
        if self._ahead is not None:
            self._ahead = None
            self._passes.drop_ahead()

    @property
    def _compiled_count(self) -> int:
        """Number of functions that have been compiled."""
        return self._decoder.compiled_count + self._source.compiled_count

    def _note(self, done: TargetPass, tokens: int, seconds: float) -> None:
        """Record a pass for the choice of depths, and its time if it compiled nothing."""
        compiled = self._compiled_count
        counts = compiled == self._compiled_before and done.is_usual
        # What is compiled to take guesses back is computed with the next pass.
        self._compiled_before, self._compiled = self._compiled, compiled
        kind, count = done.guesses.kind, done.guesses.count
        self._speculation.depths.note(kind, count, tokens - 1, seconds if counts else None, done.filled)

    def _read(self, done: TargetPass) -> list[GeneratedToken]:
        """Return the tokens up to the first that is not as guessed.

        Afterwards the cache holds the text but its last token, and what the step ahead adds.
        """
        assert done.draws is not None
        tokens, statuses = done.draws.read()
        if done.is_in_place and self._ahead is None:
            self._decoder.cache.note_read()
        guesses = done.guesses.known
        items: list[GeneratedToken] = []
        # A pass that was filled up has more draws than that.
        for row, (token, status) in enumerate(zip(tokens, statuses, strict=True)):
            draw, is_redrawn = done.draws.one(row), status == Status.UNCERTAIN
            if is_redrawn:
                if self._ahead is not None:
                    self._drop_ahead()
                    self._sampler.take_back(1)
                draw = self._sampler.redraw(draw)
                token, status = read_draw(draw)
            if status == Status.NOT_FINITE:
                if items:  # They come first; the next pass will fail.
                    break
                raise self._bounds.error or not_chosen(draw)
            if self._ahead is None:
                self._sampler.note([token])
            items.append(GeneratedToken(token, draw, self._bounds.finish(token, self._count + row)))
            if row == len(guesses) or is_redrawn or items[-1].finish is not None or token != guesses[row]:
                break
        self._decoder.cache.take_back(done.rows - len(items))
        as_guessed = sum(item.id == guess for item, guess in zip(items, guesses, strict=False))
        self._speculation.counts.add_pass(len(guesses), as_guessed)
        return items

    def _add(self, tokens: Sequence[int], hidden: mx.array | None) -> None:
        """Add tokens to the text of the source."""
        if tokens:
            self._count += len(tokens)
            self._speculation.add(tokens, hidden)

    def _next(self, known: Sequence[int]) -> TargetPass:
        """Return the step ahead, or build the next pass over known tokens, with guesses if there are any.

        Tokens that had to come are added without guesses: the pass is a long one anyway.
        """
        if self._ahead is not None and len(known) == 1:
            self._passes.keep_ahead()
            ahead, self._ahead = self._ahead, None
            return ahead
        self._drop_ahead()
        guesses = self._guesses() if len(known) == 1 else None
        allowed: RowLimits = ()
        if guesses is not None and self._bounds.guide is not None:
            guesses, allowed = cut_by_guide(guesses, self._bounds.guide, self._bounds)
        if guesses is None:
            return self._passes.after(known, self._count, is_guided=self._is_guided)
        filled = self._speculation.depths.filled(guesses.kind, guesses.count)
        return self._passes.over(known[0], self._count, guesses, allowed, filled)

    def _launch(self, built: TargetPass) -> None:
        """Start to compute a pass. With a guide, ask it meanwhile, and draw then."""
        if not built.is_in_place:
            wait_for_release()
        if built.draws is None:
            assert built.logits is not None
            self._bounds.prepare()
            mx.async_eval(built.logits)
            nothing = mx.zeros(0, mx.int32)
            built.draws = draw_rows(
                built.logits, self._sampler, built.index, nothing, [self._bounds.allowed()]
            )
        mx.async_eval(built.draws.results)
        self._pending = built
        if (running := self._passes.running(built)) is not None:
            self._source.guess_after(running, self._room_after)

    def _room(self, kind: str) -> int:
        """Implement `Room`: the guesses and one more token must fit the text and the cache."""
        depths, left = self._speculation.depths, self._bounds.limit - self._count - 1
        count = depths.cut(kind, depths.choose(kind), left)
        # Dynamic rope scaling rotates a longer text by other periods, and a pass has one set of them.
        periods, position = self._decoder.model.rope.periods, self._prompt_tokens + self._count
        is_one_pass = self._speculation.rows_apart or periods(position) is periods(position + count)
        return count if is_one_pass else 0

    def _room_after(self, kind: str) -> int:
        """Implement `Room` after the pass that is being computed, which gives at least one token."""
        depths, left = self._speculation.depths, self._bounds.limit - self._count - 2
        return depths.cut(kind, depths.choose_ahead(kind), left) if left > 0 else 0

    def _guesses(self) -> Guesses | None:
        """Ask the source for guesses."""
        return self._source.guess(self._room, GuessDraw(self._sampler, self._count))
