"""Turns the tokens of one text into pieces: characters, thinking, stop texts and log-probabilities."""

from metal_gen.config.settings import Settings
from metal_gen.engine.generator import GeneratedToken
from metal_gen.engine.stopping import FinishDetail
from metal_gen.generation.guides.guide import TextGuide
from metal_gen.generation.guides.loops import LoopDetector
from metal_gen.generation.pieces import Clock, Piece
from metal_gen.sampling.logprobs import read_logprobs
from metal_gen.text.detokenizer import Detokenizer
from metal_gen.text.encoded_prompt import Prompt
from metal_gen.text.stop_strings import StopMatcher
from metal_gen.text.thinking import TAGS, ThinkingSplitter
from metal_gen.text.tokenizer import Tokenizer
from metal_gen.text.tool_calls import ParsedAnswer, parse_tool_calls


class TextAssembly:
    """Makes the pieces of one text.

    Args:
        tokenizer: Tokenizer of the model.
        prompt: Prompt that the text follows.
        settings: Settings with the texts that end it, whether loops do, and the functions that it may call.
        sample: Index of the text among several for the prompt.
        clock: Clock that counts its tokens.
        guide: Guide of the text, if it has one.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt: Prompt,
        settings: Settings,
        sample: int,
        clock: Clock,
        guide: TextGuide | None = None,
    ) -> None:
        self._detokenizer = Detokenizer(tokenizer)
        self._splitter = ThinkingSplitter(prompt, is_answer=guide is not None and guide.begins_with_answer)
        # A tag that is spelled by other tokens is no tag where both are tokens of their own.
        tags = {tokenizer.added_ids.get(tag) for tag in TAGS}
        self._tags = None if None in tags else tags
        self._answer = ""
        self._matcher = StopMatcher(settings.stop)
        self._sample = sample
        self._clock = clock
        self._guide = guide
        self._tools = settings.functions
        self._said: list[str] = []
        self._loops = LoopDetector() if settings.break_loops else None

    def add(self, token: GeneratedToken, cache_tokens: int) -> Piece:
        """Make the piece of the next token.

        Args:
            token: The next token.
            cache_tokens: Number of cache positions in use.

        Returns:
            The piece. If its `finish` is set, the text ends with it. A stop text can set it too.
        """
        self._clock.tick()
        finish, stop_text = self._finish(token), None
        ended_by_token = finish in (FinishDetail.EOS, FinishDetail.STOP_TOKEN)
        text = "" if ended_by_token else self._detokenizer.add(token.id)
        text += self._detokenizer.finish() if finish else ""
        is_plain = self._tags is not None and token.id not in self._tags
        thinking, answer = self._split(text, is_last=finish is not None, is_plain=is_plain)
        if thinking or answer is None:
            self._clock.count_thinking()
        text = thinking if answer is None else answer
        if answer is not None:
            text, stop_text = self._matcher.feed(text)
            finish = FinishDetail.STOP_TEXT if stop_text is not None else finish
            text += self._matcher.finish() if finish else ""
        logprobs = None if token.logprobs is None else read_logprobs(token.logprobs)
        return Piece(
            text=text,
            token_id=token.id,
            is_thinking=answer is None,
            thinking_end="" if answer is None else thinking,
            finish=finish,
            stop_text=stop_text,
            logprobs=logprobs,
            sample=self._sample,
            statistics=self._clock.statistics(cache_tokens),
            complete=self._is_complete(finish),
            thinking_cut=None if self._guide is None else self._guide.thinking.cut,
            answer=self._parse(text, is_thinking=answer is None, is_last=finish is not None),
        )

    def _parse(self, text: str, *, is_thinking: bool, is_last: bool) -> ParsedAnswer | None:
        """Take the next part of the answer. Return the calls in the whole of it, if this is the last part."""
        if not self._tools:
            return None
        self._said += [] if is_thinking else [text]
        return parse_tool_calls("".join(self._said), self._tools) if is_last else None

    def _finish(self, token: GeneratedToken) -> FinishDetail | None:
        """Return why the text ends with a token, be it that it repeats itself."""
        if self._loops is None or self._splitter.is_thinking:
            return token.finish
        repeats = self._loops.add(token.id)
        return token.finish or (FinishDetail.LOOP if repeats else None)

    def _is_complete(self, finish: FinishDetail | None) -> bool | None:
        """Return whether the answer is a whole document; None without a constraint.

        A text that is cut by a limit is none, even if the grammar would allow it to end there.
        """
        if self._guide is None or not self._guide.is_constrained:
            return None
        return finish is FinishDetail.GRAMMAR or (finish is FinishDetail.EOS and self._guide.is_complete)

    def _split(self, text: str, *, is_last: bool, is_plain: bool = False) -> tuple[str, str | None]:
        """Return the new thinking and the new answer; None for an answer that has not begun.

        If a token ends the thinking and begins the answer, the answer waits for the next token. Only the last
        token has both.
        """
        thinking, answer = self._splitter.feed(text, is_plain=is_plain)
        self._answer += answer
        if is_last:
            rest = self._splitter.finish()
            thinking, self._answer = thinking + rest[0], self._answer + rest[1]
        if (thinking and not (is_last and self._answer)) or self._splitter.is_thinking:
            return thinking, None
        answer, self._answer = self._answer, ""
        return thinking, answer
