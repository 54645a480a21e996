"""The plugin for `llm`: `llm -m metal-gen/Qwen/Qwen3-4B "prompt"`.

`llm` imports this file at every start where both are installed. It therefore loads neither MLX nor
the client of the Hub before a model answers.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import Any

import llm
from llm.parts import ReasoningPart, StreamEvent, TextPart, ToolCallPart, ToolResultPart
from pydantic import Field, create_model

from metal_gen.config.settings import SETTINGS, Settings
from metal_gen.config.sources import override_with_arguments, override_with_flags, resolve_settings
from metal_gen.errors import MetalGenError, UsageError
from metal_gen.hub.cache import cached_references
from metal_gen.text.messages import TOOL_CALLS, Message

PREFIX = "metal-gen/"
BUNDLED = "bundled"
ALIAS = "metal-gen"
# Sections of settings that can differ per answer.
OF_AN_ANSWER = ("sampling", "generation")
# Settings that llm takes from a prompt, not from options.
OF_A_PROMPT = ("schema", "tools")
# Settings that llm offers in another way, or that do not apply to it.
_LEFT_OUT = (*OF_A_PROMPT, "model", "system", "samples", "raw", "logprobs", "batch_size")
_SECTIONS = (*OF_AN_ANSWER, "model", "cache", "memory", "prefill")
OPTIONS = [name for name, info in SETTINGS.items() if info.section in _SECTIONS and name not in _LEFT_OUT]


@llm.hookimpl
def register_models(register: Callable[..., None]) -> None:
    """Register the models in the Hub's cache, the bundled model, and the model of the user's settings.

    The name `metal-gen` alone means the model of the settings, or the bundled one.
    """
    references = [BUNDLED, *cached_references()]
    try:
        own = resolve_settings(environ=os.environ).model
    except MetalGenError:
        own = None  # An invalid file is reported when a model answers.
    if own is not None and own not in references:
        references.append(own)
    for reference in references:
        is_default = reference == (own or BUNDLED)
        register(MetalGenModel(reference), aliases=(ALIAS,) if is_default else ())


def _options() -> Any:
    """Create the options of `-o`, which are the settings; the settings' own checks parse the values."""
    given: Any = {name: (Any, Field(default=None, description=SETTINGS[name].help)) for name in OPTIONS}
    return create_model("Options", __base__=llm.Options, **given)


class MetalGenModel(llm.Model):
    """A model as `llm` sees it; it stays loaded between the turns of `llm chat`."""

    can_stream = True
    supports_schema = True
    supports_tools = True
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
            for name in OF_A_PROMPT:
                chat.change_back(name)
            chat.change(**given, schema=closed(prompt.schema), tools=functions_from(prompt.tools))
            with closing(chat.answer(messages_from(prompt.messages))) as pieces:
                yield from _events(pieces, response, has_tools=bool(prompt.tools))
        except MetalGenError as error:
            hint = f"\nhint: {error.hint}" if error.hint else ""
            raise llm.ModelError(error.message + hint) from None

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


def _events(pieces: Iterator[Any], response: llm.Response, *, has_tools: bool) -> Iterator[StreamEvent]:
    """Yield pieces as llm's events, then tell llm of calls and counts.

    An answer that may call functions comes as a whole, because only then its text is known from its calls.
    """
    from metal_gen.generation.pieces import join

    given = []
    for piece in pieces:
        given.append(piece)
        if piece.thinking:
            yield StreamEvent("reasoning", piece.thinking)
        if piece.text and not (piece.is_thinking or has_tools):
            yield StreamEvent("text", piece.text)
    if not given:
        return
    answer = join(given)
    if has_tools and answer.text:
        yield StreamEvent("text", answer.text)
    for call in answer.tool_calls:
        response.add_tool_call(llm.ToolCall(name=call.name, arguments=json.loads(call.arguments)))
    counts = answer.statistics
    response.set_usage(input=counts.prompt_tokens, output=counts.completion_tokens)


def closed(schema: Any) -> Any:
    """Allow no other properties than those named, where a schema of llm leaves that open.

    llm makes schemas from fields and from Python functions. They never say that an object ends with them.
    """
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: closed(value) for name, value in schema.items() if name != "properties"}
    if isinstance(properties := schema.get("properties"), dict):
        made["properties"] = {name: closed(value) for name, value in properties.items()}
        made.setdefault("additionalProperties", False)
    return made


def functions_from(tools: Iterable[Any]) -> list[dict[str, Any]] | None:
    """Describe llm's tools as OpenAI's API does; None if there are none."""
    described = [
        {"name": tool.name, "description": tool.description or "", "parameters": closed(tool.input_schema)}
        for tool in tools
    ]
    return described or None


def messages_from(messages: Iterable[Any]) -> list[Message]:
    """Turn llm's messages into those of a chat template.

    Raises:
        UsageError: A part is something else than a text, thinking, a call or its result.
    """
    made: list[Message] = []
    for message in messages:
        content, thinking = "", ""
        calls: list[dict[str, Any]] = []
        for part in message.parts:
            if isinstance(part, TextPart):
                content += part.text
            elif isinstance(part, ReasoningPart):
                thinking += part.text
            elif isinstance(part, ToolCallPart):
                function = {"name": part.name, "arguments": part.arguments}
                calls.append({"type": "function", "function": function})
            elif isinstance(part, ToolResultPart):
                made.append({"role": message.role, "name": part.name, "content": str(part.output)})
            else:
                raise UsageError(f"a message has a part that is not text: {type(part).__name__}")
        if all(isinstance(part, ToolResultPart) for part in message.parts) and message.parts:
            continue
        others = {"reasoning_content": thinking, TOOL_CALLS: calls}
        made.append({"role": message.role, "content": content, **{k: v for k, v in others.items() if v}})
    return made
