"""Turns the tokens of one text into pieces: characters, thinking, stop texts and log-probabilities."""

from metal_gen.engine.generator import GeneratedToken
from metal_gen.engine.stopping import FinishDetail
from metal_gen.generation.pieces import Clock, Piece
from metal_gen.sampling.logprobs import read_logprobs
from metal_gen.text.detokenizer import Detokenizer
from metal_gen.text.encoded_prompt import Prompt
from metal_gen.text.stop_strings import StopMatcher
from metal_gen.text.thinking import ThinkingSplitter
from metal_gen.text.tokenizer import Tokenizer


class TextAssembly:
    """Makes the pieces of one text.

    Args:
        tokenizer: Tokenizer of the model.
        prompt: Prompt that the text follows.
        stop: Texts that end it; they are cut off.
        sample: Index of the text among several for the prompt.
        clock: Clock that counts its tokens.
    """

    def __init__(
        self, tokenizer: Tokenizer, prompt: Prompt, stop: tuple[str, ...], sample: int, clock: Clock
    ) -> None:
        self._detokenizer = Detokenizer(tokenizer)
        self._splitter = ThinkingSplitter(prompt)
        self._answer = ""
        self._matcher = StopMatcher(stop)
        self._sample = sample
        self._clock = clock

    def add(self, token: GeneratedToken, cache_tokens: int) -> Piece:
        """Make the piece of the next token.

        Args:
            token: The next token.
            cache_tokens: Number of cache positions in use.

        Returns:
            The piece. If its `finish` is set, the text ends with it. A stop text can set it too.
        """
        self._clock.tick()
        finish, stop_text = token.finish, None
        ended_by_token = finish in (FinishDetail.EOS, FinishDetail.STOP_TOKEN)
        text = "" if ended_by_token else self._detokenizer.add(token.id)
        text += self._detokenizer.finish() if finish else ""
        text, is_thinking = self._split(text, is_last=finish is not None)
        if is_thinking:
            self._clock.count_thinking()
        else:
            text, stop_text = self._matcher.feed(text)
            finish = FinishDetail.STOP_TEXT if stop_text is not None else finish
            text += self._matcher.finish() if finish else ""
        logprobs = None if token.logprobs is None else read_logprobs(token.logprobs)
        statistics = self._clock.statistics(cache_tokens)
        return Piece(text, token.id, is_thinking, finish, stop_text, logprobs, self._sample, statistics)

    def _split(self, text: str, *, is_last: bool) -> tuple[str, bool]:
        """Return the new text, and whether it is thinking. It is never both.

        If a token ends the thinking and begins the answer, the answer waits for the next token.
        """
        thinking, answer = self._splitter.feed(text)
        self._answer += answer
        if is_last:
            rest = self._splitter.finish()
            thinking, self._answer = thinking + rest[0], self._answer + rest[1]
        if (thinking and not (is_last and self._answer)) or self._splitter.is_thinking:
            return thinking, True
        answer, self._answer = self._answer, ""
        return answer, False
