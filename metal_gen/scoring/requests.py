"""Turns texts into the requests that score them.

A prompt and the text after it are encoded separately, and their tokens are joined. So the tokens of a
prompt never depend on the text after it, and no token has characters of both.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.config.settings import Settings
from metal_gen.engine.scoring.scorer import ScoreRequest
from metal_gen.errors import DoesNotFitError, UsageError
from metal_gen.generation.memory.plan import MemoryPlan
from metal_gen.generation.prompt import encode_as_set
from metal_gen.scoring.long_text import encode_parts
from metal_gen.scoring.windows import windows
from metal_gen.text.encoded_prompt import Prompt
from metal_gen.text.messages import Message

# Settings that a score depends on: those of the prompt.
PROMPT_SETTINGS = ("system", "raw", "thinking", "prefill", "template_arg")


@dataclass(frozen=True)
class RequestMaker:
    """Makes requests for the texts of one model.

    Args:
        checkpoint: Gives tokenizer and chat template.
        settings: Settings in force, of which those of the prompt are used.
        capacity: Tokens of a window, and the most tokens of a prompt with its text.
        most: Largest capacity that could be set.
    """

    checkpoint: Checkpoint
    settings: Settings
    capacity: int
    most: int

    @classmethod
    def of(cls, checkpoint: Checkpoint, settings: Settings, plan: MemoryPlan) -> "RequestMaker":
        """Return the maker for a planned run.

        Raises:
            DoesNotFitError: The cache holds a single token.
        """
        capacity = plan.cache.max_seq_len
        if capacity < 2:
            raise DoesNotFitError(
                f"max_seq_len is {capacity}, and to score a text takes 2 tokens at least",
                "raise max_seq_len under [cache] (--max-seq-len 2048)",
            )
        return cls(checkpoint, settings, capacity, plan.with_cache(batch_size=1).largest_max_seq_len)

    def stride(self, wanted: int | None) -> int:
        """Return the stride of windows: half a window unless another one is wanted.

        Raises:
            UsageError: It is below 1, or as large as a window.
        """
        if wanted is None:
            return max(1, self.capacity // 2)
        if isinstance(wanted, bool) or not isinstance(wanted, int):
            raise UsageError(f"the stride must be a whole number, not {wanted!r}")
        if not 1 <= wanted < self.capacity:
            raise UsageError(
                f"the stride must be from 1 to {self.capacity - 1}, less than max_seq_len: {wanted}",
                "half of max_seq_len is the default",
            )
        return wanted

    def text(self, pieces: Iterable[str], stride: int) -> "TextRequests":
        """Make the requests of a text by itself, in windows if it is long."""
        return TextRequests(self, pieces, stride)

    def prompt(self, prompt: str | Sequence[Message]) -> Prompt:
        """Encode a prompt as `generate` would; errors as of `encode_prompt`."""
        return encode_as_set(self.checkpoint, prompt, self.settings, most_tokens=self.capacity)

    def answer(self, prompt: Prompt, text: str, what: str = "text") -> ScoreRequest:
        """Make the request for a text after a prompt.

        Args:
            prompt: From `prompt`.
            text: Text that follows it, not empty.
            what: Name of the text in errors.

        Raises:
            UsageError: The text is empty, or cannot be encoded.
            DoesNotFitError: Both together do not fit the cache.
        """
        if not text:
            raise UsageError(f"the {what} is empty")
        ids = self.checkpoint.tokenizer.encode(
            text, add_special_tokens=False, most_tokens=self.capacity, what=what
        )
        if not ids:
            raise UsageError(f"the {what} has no tokens")
        self.require_room(len(prompt.ids) + len(ids), f"prompt and {what}")
        return ScoreRequest(shared=prompt.ids[:-1], own=[prompt.ids[-1], *ids[:-1]], targets=ids)

    def require_room(self, tokens: int, what: str) -> None:
        """Refuse a text that is longer than a window.

        Raises:
            DoesNotFitError: It is.
        """
        if tokens <= self.capacity:
            return
        hint = "shorten it"
        if tokens <= self.most:
            hint = f"raise max_seq_len under [cache] (--max-seq-len {tokens}), or shorten it"
        raise DoesNotFitError(
            f"{what} have {tokens:,} tokens together, and max_seq_len is {self.capacity:,}", hint
        )


class TextRequests:
    """The requests for a text by itself, made one after another.

    Attributes:
        nbytes: Size in UTF-8 of the text so far, less the first token, which is not scored.
    """

    def __init__(self, maker: RequestMaker, pieces: Iterable[str], stride: int) -> None:
        self.nbytes = 0
        self._tokens = 0
        self._tokenizer = maker.checkpoint.tokenizer
        self._requests = windows(self._ids(pieces), maker.capacity, stride)

    def __iter__(self) -> Iterator[ScoreRequest]:
        """Yield the requests.

        Raises:
            UsageError: The text is empty or a single token.
        """
        has_any = False
        for request in self._requests:
            has_any = True
            yield request
        if not self._tokens:
            raise UsageError("the text is empty", "name a file that has text, or pipe it in")
        if not has_any:
            raise UsageError(
                "the text is a single token, and nothing comes before it that could predict it",
                "give a longer text, or a prompt before it",
            )

    def _ids(self, pieces: Iterable[str]) -> Iterator[list[int]]:
        for ids in encode_parts(self._tokenizer, self._counted(pieces)):
            if ids and not self._tokens:
                self.nbytes -= len(self._tokenizer.token_bytes(ids[0]))
            self._tokens += len(ids)
            yield ids

    def _counted(self, pieces: Iterable[str]) -> Iterator[str]:
        for piece in pieces:
            self.nbytes += len(piece.encode(errors="surrogatepass"))
            yield piece
