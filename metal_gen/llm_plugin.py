"""The plugin for `llm`: `llm -m metal-gen/Qwen/Qwen3-4B "prompt"`.

`llm` imports this file at every start where both are installed. It therefore loads neither MLX nor
the client of the Hub before a model answers.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import Any

import llm
from llm.parts import ReasoningPart, StreamEvent, TextPart
from pydantic import Field, create_model

from metal_gen.config.settings import SETTINGS, Settings
from metal_gen.config.sources import override_with_arguments, override_with_flags, resolve_settings
from metal_gen.errors import MetalGenError, UsageError
from metal_gen.hub.cache import cached_references
from metal_gen.text.messages import Message

PREFIX = "metal-gen/"
BUNDLED = "bundled"
# Sections of settings that can differ per answer.
OF_AN_ANSWER = ("sampling", "generation")
# Settings that llm offers in another way, or that do not apply to it.
_LEFT_OUT = ("model", "system", "samples", "raw", "logprobs", "batch_size")
_SECTIONS = (*OF_AN_ANSWER, "model", "cache", "memory", "prefill")
OPTIONS = [name for name, info in SETTINGS.items() if info.section in _SECTIONS and name not in _LEFT_OUT]


@llm.hookimpl
def register_models(register: Callable[..., None]) -> None:
    """Register the models in the Hub's cache, the bundled model, and the model of the user's settings."""
    references = [BUNDLED, *cached_references()]
    try:
        own = resolve_settings(environ=os.environ).model
    except MetalGenError:
        own = None  # An invalid file is reported when a model answers.
    if own is not None and own not in references:
        references.append(own)
    for reference in references:
        register(MetalGenModel(reference))


def _options() -> Any:
    """Create the options of `-o`, which are the settings; the settings' own checks parse the values."""
    given: Any = {name: (Any, Field(default=None, description=SETTINGS[name].help)) for name in OPTIONS}
    return create_model("Options", __base__=llm.Options, **given)


class MetalGenModel(llm.Model):
    """A model as `llm` sees it; it stays loaded between the turns of `llm chat`."""

    can_stream = True
    Options = _options()

    def __init__(self, reference: str) -> None:
        self.model_id = PREFIX + reference
        self._reference = reference
        self._loaded: Any = None

    def execute(
        self, prompt: llm.Prompt, stream: bool, response: llm.Response, conversation: Any
    ) -> Iterator[StreamEvent]:
        """Yield the answer's pieces as they arrive."""
        try:
            settings, given = self._settings(prompt.options)
            chat = self._conversation(settings)
            for name in OPTIONS:
                if SETTINGS[name].section in OF_AN_ANSWER:
                    chat.change_back(name)
            chat.change(**given)
            with closing(chat.answer(messages_from(prompt.messages))) as pieces:
                last = None
                for last in pieces:
                    if last.text:
                        yield StreamEvent("reasoning" if last.is_thinking else "text", last.text)
        except MetalGenError as error:
            hint = f"\nhint: {error.hint}" if error.hint else ""
            raise llm.ModelError(error.message + hint) from None
        if last is not None:
            counts = last.statistics
            response.set_usage(input=counts.prompt_tokens, output=counts.completion_tokens)

    def _settings(self, options: llm.Options) -> tuple[Settings, dict[str, object]]:
        """Return the settings for loading the model, and those for this answer only.

        Raises:
            MetalGenError: An option, a file or a variable cannot be used.
        """
        given = {name: value for name in OPTIONS if (value := getattr(options, name)) is not None}
        texts = {name: value for name, value in given.items() if isinstance(value, str)}
        others = {name: value for name, value in given.items() if name not in texts}
        settings = resolve_settings(environ=os.environ)
        reference = None if self._reference == BUNDLED else self._reference
        settings = settings.override({"model": reference}, "llm")
        read = override_with_arguments(override_with_flags(settings, texts), others)
        of_answer = {name for name in given if SETTINGS[name].section in OF_AN_ANSWER}
        kept = {name: getattr(settings, name) for name in of_answer}
        loading = read.override(kept, "llm")
        return loading, {name: getattr(read, name) for name in of_answer}

    def _conversation(self, settings: Settings) -> Any:
        """Return a conversation with the model; load the model if these settings need it."""
        from metal_gen.generation.conversation import Conversation
        from metal_gen.generation.loading import prepare

        if self._loaded is None or self._loaded[0] != settings:
            self._loaded = None  # Two models may not fit into memory together.
            prepared = prepare(settings).for_chat()
            self._loaded = (settings, Conversation(prepared.load()))
        return self._loaded[1]


def messages_from(messages: Iterable[Any]) -> list[Message]:
    """Turn llm's messages into those of a chat template.

    Raises:
        UsageError: A part is neither text nor thinking.
    """
    made: list[Message] = []
    for message in messages:
        texts = {"content": "", "reasoning_content": ""}
        for part in message.parts:
            if isinstance(part, TextPart):
                texts["content"] += part.text
            elif isinstance(part, ReasoningPart):
                texts["reasoning_content"] += part.text
            else:
                raise UsageError(f"a message has a part that is not text: {type(part).__name__}")
        if not texts["reasoning_content"]:
            del texts["reasoning_content"]
        made.append({"role": message.role, **texts})
    return made
