"""A conversation over the one cache of a model: each turn computes what is new, and no more.

Every prompt is the whole conversation, as the chat template renders it. What it has in common with the
tokens in the cache, from the beginning, stays there. That is nearly all of it, unless the template leaves
something out that was said before, as Qwen3's does with thinking.
"""

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import replace

from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.config.settings import Settings
from metal_gen.config.sources import override_with_arguments
from metal_gen.engine.cached_text import CachedText
from metal_gen.engine.decoder import PrefillProgress
from metal_gen.engine.stopping import larger_capacity
from metal_gen.errors import DoesNotFitError, UsageError
from metal_gen.generation.loading import TextModel
from metal_gen.generation.pieces import Piece, join
from metal_gen.generation.prompt import encode_as_set
from metal_gen.generation.prompt_texts import PromptTexts
from metal_gen.generation.strategy_settings import endings_from, require_text_settings, strategy_from
from metal_gen.sampling.strategy import SamplingStrategy
from metal_gen.text.chat_template import MessagesRefusedError
from metal_gen.text.encoded_prompt import Prompt
from metal_gen.text.messages import ASSISTANT, SYSTEM, USER, Message
from metal_gen.text.thinking import ThinkingSplitter

# Settings of a text that a turn does not have, and why.
NOT_OF_A_TURN = {
    "samples": "a turn has one answer",
    "raw": "a conversation needs the chat template",
    "system": "the system message is one of the messages",
}
SEEDS = 2**64


class ConversationFullError(DoesNotFitError):
    """The messages do not fit the cache; nothing was computed, and the conversation is as before.

    Attributes:
        tokens: Of the messages, the one that was to be answered included.
        max_seq_len: The cache's capacity.
    """

    def __init__(self, tokens: int, max_seq_len: int, most: int) -> None:
        """Propose a capacity of at most `most` tokens, where that leaves room for an answer."""
        larger = larger_capacity(tokens, None, most)
        super().__init__(
            f"the conversation is full: with this message it has {tokens} tokens, and max_seq_len is "
            f"{max_seq_len}",
            f"raise max_seq_len under [cache] (--max-seq-len {larger})" if larger else "begin another one",
        )
        self.tokens = tokens
        self.max_seq_len = max_seq_len


class Conversation:
    """Turns of a user and a model.

    The model may be used for other texts in between; the next turn is then computed from its beginning.

    Args:
        model: From `load`. Its `system` is the first message where none are given.
        messages: What has been said before, each with `role` and `content`.
        settings: Settings of sampling and generation by name; they go before the model's.

    Attributes:
        messages: What has been said. An answer's thinking is under `reasoning_content`.
        settings: In force from the next answer on. A `seed` is the first answer's; each one after it has
            the next.
        notices: What a person should know about how the last prompt was made.

    Raises:
        UsageError: The checkpoint has no chat template, or a setting cannot be used.
    """

    def __init__(self, model: TextModel, messages: Sequence[Message] = (), **settings: object) -> None:
        require_chat(model.checkpoint, model.settings)
        self.model = model
        self.messages = list(messages)
        self.settings = replace(model.settings, samples=1)
        self.notices: tuple[str, ...] = ()
        self._cached = CachedText(model.decoder)
        self._answers = 0
        if not messages and model.settings.system is not None:
            self.set_system(model.settings.system)
        self.change(**settings)
        self._settings_at_first = self.settings

    def change(self, **settings: object) -> None:
        """Change settings by name, from the next answer on; None stands for "as before".

        Raises:
            UsageError: One cannot be used, or is none of a turn; all are as before.
        """
        names = [name for name, value in settings.items() if value is not None]
        changed = override_with_arguments(self.settings, settings)
        require_text_settings(names)
        for name in names:
            if name in NOT_OF_A_TURN:
                raise UsageError(f"{name} cannot be set in a conversation: {NOT_OF_A_TURN[name]}")
        checkpoint = self.model.checkpoint
        strategy_from(changed, checkpoint.tokenizer, checkpoint.eos_ids)
        endings_from(changed, checkpoint.tokenizer, checkpoint.eos_ids)
        self.settings = changed
        if "seed" in names:
            self._answers = 0

    def change_back(self, name: str) -> None:
        """Have a setting as it was when the conversation began, from the next answer on."""
        before = self._settings_at_first
        self.settings = self.settings.override({name: getattr(before, name)}, before.source(name))

    def ask(self, text: str, *, on_prefill: PrefillProgress | None = None) -> Generator[Piece, None, None]:
        """Say something, and yield the pieces of the answer as they come.

        Closing the iterator ends the answer. What was said by then is kept; if that is nothing, what was
        asked is taken back too.

        Args:
            text: The user's message.
            on_prefill: Called with new prompt tokens done and in all, after each chunk but the last.

        Raises:
            ConversationFullError: The message does not fit.
            CheckpointError: The chat template refuses it.
        """
        if not text:
            raise UsageError("the message is empty")
        return self._answer([*self.messages, {"role": USER, "content": text}], on_prefill)

    def retry(self, *, on_prefill: PrefillProgress | None = None) -> Generator[Piece, None, None]:
        """Answer the user's last message anew, with another seed; arguments and errors as of `ask`.

        The answer before stays if nothing comes in its place.
        """
        return self._answer(self.messages[: self._requests("there is nothing to answer")[-1] + 1], on_prefill)

    def undo(self) -> list[Message]:
        """Take back the user's last message and all that came after it; returns them."""
        begin = self._requests("there is nothing to take back")[-1]
        taken, self.messages = self.messages[begin:], self.messages[:begin]
        return taken

    def forget(self, turns: int = 1) -> list[Message]:
        """Drop the oldest turns, but not the system message; returns what was dropped.

        Raises:
            UsageError: There are not as many.
        """
        requests = self._requests("there is nothing to forget")
        if not 1 <= turns <= len(requests):
            raise UsageError(f"cannot forget {turns} of {len(requests)} turns")
        begin = 1 if self.system is not None else 0
        end = requests[turns] if turns < len(requests) else len(self.messages)
        dropped = self.messages[begin:end]
        del self.messages[begin:end]
        return dropped

    def clear(self) -> list[Message]:
        """Drop every message but the system message; returns what was dropped."""
        kept = self.messages[:1] if self.system is not None else []
        dropped, self.messages = self.messages[len(kept) :], kept
        return dropped

    @property
    def system(self) -> str | None:
        """The system message, where there is one."""
        first = self.messages[0] if self.messages else {}
        return first.get("content") if first.get("role") == SYSTEM else None

    def set_system(self, text: str | None) -> None:
        """Put this system message first, in place of the one there is; None leaves it out."""
        rest = self.messages if self.system is None else self.messages[1:]
        self.messages = [*([] if text is None else [{"role": SYSTEM, "content": text}]), *rest]

    @property
    def turns(self) -> int:
        """How often the user has said something."""
        return len([message for message in self.messages if message["role"] == USER])

    @property
    def strategy(self) -> SamplingStrategy:
        """How the next answer's tokens are chosen."""
        checkpoint = self.model.checkpoint
        return strategy_from(self.settings, checkpoint.tokenizer, checkpoint.eos_ids)

    @property
    def capacity(self) -> int:
        """Tokens that the cache holds."""
        return self.model.decoder.cache.config.max_seq_len

    def count_tokens(self) -> int:
        """Tokens that the messages make, with what the template puts before an answer; 0 before the first.

        Raises:
            CheckpointError: The chat template refuses them.
        """
        if not self.turns:
            return 0
        return len(self._encode(self.messages).ids)

    def _requests(self, otherwise: str) -> list[int]:
        """The places of the user's messages."""
        places = [place for place, message in enumerate(self.messages) if message["role"] == USER]
        if not places:
            raise UsageError(otherwise)
        return places

    def _encode(self, messages: list[Message]) -> Prompt:
        try:
            settings = replace(self.settings, system=None)
            return encode_as_set(
                self.model.checkpoint, messages, settings, most_tokens=self.model.plan.most_tokens
            )
        except MessagesRefusedError as error:
            hint = "take the last turn back, or change the system message"
            raise MessagesRefusedError(error.message, hint) from error

    def _answer(
        self, asked: list[Message], on_prefill: PrefillProgress | None
    ) -> Generator[Piece, None, None]:
        settings = self.settings
        prompt = self._encode(asked)
        if len(prompt.ids) > self.capacity:
            most = self.model.plan.largest_max_seq_len
            raise ConversationFullError(len(prompt.ids), self.capacity, most)
        self.notices = prompt.notices
        if settings.seed is not None:
            settings = replace(settings, seed=(settings.seed + self._answers) % SEEDS)
            self._answers += 1
        texts = PromptTexts(self.model, prompt, settings, self.strategy, self._cached)
        return self._recorded(asked, prompt, texts.pieces(on_prefill))

    def _recorded(
        self, asked: list[Message], prompt: Prompt, pieces: Generator[Piece, None, None]
    ) -> Generator[Piece, None, None]:
        """The same pieces; when they end, for whatever reason, the conversation has what was said."""
        said: list[Piece] = []
        try:
            with closing(pieces):
                for piece in pieces:
                    said.append(piece)
                    yield piece
        finally:
            if said:
                self._record(asked, said, ThinkingSplitter(prompt).prefilled)

    def _record(self, asked: list[Message], said: list[Piece], prefilled: tuple[str, str]) -> None:
        answer = join(said)
        if not (said[-1].finish or answer.text or answer.thinking):
            return
        message = {"role": ASSISTANT, "content": prefilled[1] + answer.text}
        if thinking := prefilled[0] + answer.thinking:
            message["reasoning_content"] = thinking
        self.messages = [*asked, message]


def require_chat(checkpoint: Checkpoint, settings: Settings) -> None:
    """Refuse a conversation with a checkpoint that has none.

    Raises:
        UsageError: There is no chat template, or it is not to be used.
    """
    if checkpoint.chat_template is None or settings.raw:
        reason = "raw is set" if settings.raw else "this checkpoint has none"
        raise UsageError(f"a conversation needs a chat template, and {reason}")
