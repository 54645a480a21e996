"""A conversation over one KV cache: each turn computes only what is new.

Every prompt is the whole conversation as the chat template renders it. The prefix that it shares with the
tokens in the cache stays there. That is nearly everything, unless the template drops earlier text, as
Qwen3's template drops thinking.
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
from metal_gen.generation.guides.making import require_constraint
from metal_gen.generation.loading import TextModel
from metal_gen.generation.pieces import Piece, join
from metal_gen.generation.prompt import encode_as_set, prefix_as_set
from metal_gen.generation.prompt_texts import PromptTexts
from metal_gen.generation.record import tool_call_records
from metal_gen.generation.strategy_settings import endings_from, require_text_settings, strategy_from
from metal_gen.sampling.strategy import SamplingStrategy
from metal_gen.text.chat_template import MessagesRefusedError
from metal_gen.text.encoded_prompt import Prompt
from metal_gen.text.messages import ASSISTANT, SYSTEM, TOOL_CALLS, USER, Message
from metal_gen.text.thinking import ThinkingSplitter

# Text settings that a turn does not have, and why.
NOT_OF_A_TURN = {
    "samples": "a turn has one answer",
    "raw": "a conversation needs the chat template",
    "system": "the system message is one of the messages",
}
SEEDS = 2**64


class ConversationFullError(DoesNotFitError):
    """The messages do not fit the cache. Nothing was computed, and the conversation is unchanged.

    Attributes:
        tokens: Number of tokens of the messages, including the new one.
        max_seq_len: Capacity of the cache.
    """

    def __init__(self, tokens: int, max_seq_len: int, most: int) -> None:
        """Propose a capacity of at most `most` tokens, if it leaves room for an answer."""
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

    Other texts may use the model in between. The next turn is then computed from the beginning.

    Args:
        model: Model from `load`. Its `system` is the first message if none are given.
        messages: Earlier messages, each with `role` and `content`.
        settings: Settings of sampling and generation by name; they override the model's.

    Attributes:
        messages: All messages so far. An answer's thinking is under `reasoning_content`.
        settings: Settings for the next answers. `seed` applies to the first answer, and each later answer
            adds 1 to it.
        notices: Notices to the user about the last prompt.

    Raises:
        UsageError: The checkpoint has no chat template, or a setting cannot be used.
    """

    def __init__(self, model: TextModel, messages: Sequence[Message] = (), **settings: object) -> None:
        require_chat(model.checkpoint, model.settings)
        self.model = model
        self.messages = list(messages)
        self.settings = replace(model.settings, samples=1)
        self.notices: tuple[str, ...] = ()
        self._cached = CachedText(model.decoder, goes_on=True)
        self._prefix = prefix_as_set(model.settings)
        self._answers = 0
        if not messages and model.settings.system is not None:
            self.set_system(model.settings.system)
        self.change(**settings)
        self._settings_at_first = self.settings

    def change(self, **settings: object) -> None:
        """Change settings by name, from the next answer on. None leaves a setting unchanged.

        Raises:
            UsageError: A setting cannot be used, or does not apply to a turn. All are unchanged.
        """
        names = [name for name, value in settings.items() if value is not None]
        changed = override_with_arguments(self.settings, settings)
        require_text_settings(names)
        for name in names:
            if name in NOT_OF_A_TURN:
                raise UsageError(f"{name} cannot be set in a conversation: {NOT_OF_A_TURN[name]}")
        checkpoint = self.model.checkpoint
        require_constraint(changed, checkpoint)
        strategy_from(changed, checkpoint.tokenizer, checkpoint.eos_ids)
        endings_from(changed, checkpoint.tokenizer, checkpoint.eos_ids)
        self.settings = changed
        if "seed" in names:
            self._answers = 0

    def change_back(self, name: str) -> None:
        """Reset a setting to its value at the start of the conversation, from the next answer on."""
        before = self._settings_at_first
        self.settings = self.settings.override({name: getattr(before, name)}, before.source(name))

    def ask(self, text: str, *, on_prefill: PrefillProgress | None = None) -> Generator[Piece, None, None]:
        """Send a message, and yield the pieces of the answer as they come.

        Closing the iterator ends the answer. The text so far is kept. If there is none, the message is
        taken back too.

        Args:
            text: The user's message.
            on_prefill: Called after each chunk but the last, with the new prompt tokens done and their total.

        Raises:
            ConversationFullError: The message does not fit.
            CheckpointError: The chat template refuses it.
        """
        if not text:
            raise UsageError("the message is empty")
        return self._answer([*self.messages, {"role": USER, "content": text}], on_prefill)

    def answer(
        self, messages: Sequence[Message], *, on_prefill: PrefillProgress | None = None
    ) -> Generator[Piece, None, None]:
        """Replace the messages with these and answer them; arguments and errors as in `ask`.

        The prefix that they share with the last prompt is not computed again.
        """
        if not messages:
            raise UsageError("there is nothing to answer")
        return self._answer(list(messages), on_prefill)

    def retry(self, *, on_prefill: PrefillProgress | None = None) -> Generator[Piece, None, None]:
        """Answer the user's last message again, with another seed; arguments and errors as in `ask`.

        The previous answer stays if no new one comes.
        """
        return self._answer(self.messages[: self._requests("there is nothing to answer")[-1] + 1], on_prefill)

    def undo(self) -> list[Message]:
        """Take back the user's last message and everything after it. Return the removed messages."""
        begin = self._requests("there is nothing to take back")[-1]
        taken, self.messages = self.messages[begin:], self.messages[:begin]
        return taken

    def forget(self, turns: int = 1) -> list[Message]:
        """Drop the oldest turns, but not the system message. Return the dropped messages.

        Raises:
            UsageError: There are fewer turns.
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
        """Drop every message but the system message. Return the dropped messages."""
        kept = self.messages[:1] if self.system is not None else []
        dropped, self.messages = self.messages[len(kept) :], kept
        return dropped

    @property
    def system(self) -> str | None:
        """The system message; None if there is none."""
        first = self.messages[0] if self.messages else {}
        return first.get("content") if first.get("role") == SYSTEM else None

    def set_system(self, text: str | None) -> None:
        """Replace the system message, or add it at the beginning. None removes it."""
        rest = self.messages if self.system is None else self.messages[1:]
        self.messages = [*([] if text is None else [{"role": SYSTEM, "content": text}]), *rest]

    @property
    def turns(self) -> int:
        """Number of messages from the user."""
        return len([message for message in self.messages if message["role"] == USER])

    @property
    def strategy(self) -> SamplingStrategy:
        """How the tokens of the next answer are chosen."""
        checkpoint = self.model.checkpoint
        return strategy_from(self.settings, checkpoint.tokenizer, checkpoint.eos_ids)

    @property
    def capacity(self) -> int:
        """Number of tokens that the cache holds."""
        return self.model.decoder.cache.config.max_seq_len

    def count_tokens(self) -> int:
        """Return the tokens of the messages and of what the template adds before an answer; 0 without turns.

        Raises:
            CheckpointError: The chat template refuses the messages.
        """
        if not self.turns:
            return 0
        return len(self._encode(self.messages).ids)

    def _requests(self, otherwise: str) -> list[int]:
        """Return the indices of the user's messages. Raise UsageError(`otherwise`) if there are none."""
        places = [place for place, message in enumerate(self.messages) if message["role"] == USER]
        if not places:
            raise UsageError(otherwise)
        return places

    def _encode(self, messages: list[Message]) -> Prompt:
        try:
            settings = replace(self.settings, system=None)
            prompt = encode_as_set(
                self.model.checkpoint,
                messages,
                settings,
                most_tokens=self.model.plan.most_tokens,
                prefix=self._prefix,
            )
            return replace(prompt, has_answers=any(each["role"] == ASSISTANT for each in messages))
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
        texts = PromptTexts(self.model, prompt, settings, self.strategy, self._cached)
        self._answers += settings.seed is not None
        return self._recorded(asked, prompt, texts.pieces(on_prefill))

    def _recorded(
        self, asked: list[Message], prompt: Prompt, pieces: Generator[Piece, None, None]
    ) -> Generator[Piece, None, None]:
        """Yield the same pieces. When they end, for whatever reason, add the answer to the conversation."""
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
        message: Message = {"role": ASSISTANT, "content": prefilled[1] + answer.text}
        if thinking := prefilled[0] + answer.thinking:
            message["reasoning_content"] = thinking
        if answer.tool_calls:
            message[TOOL_CALLS] = tool_call_records(answer.tool_calls)
        self.messages = [*asked, message]


def require_chat(checkpoint: Checkpoint, settings: Settings) -> None:
    """Refuse a conversation if the checkpoint does not support one.

    Raises:
        UsageError: There is no chat template, or the settings disable it.
    """
    if checkpoint.chat_template is None or settings.raw:
        reason = "raw is set" if settings.raw else "this checkpoint has none"
        raise UsageError(f"a conversation needs a chat template, and {reason}")
