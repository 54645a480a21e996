"""Renders messages with a checkpoint's chat template, in a sandbox.

Source: `chat_template_utils.py` of Hugging Face transformers, whose environment this repeats.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from metal_gen.errors import CheckpointError
from metal_gen.files.json_file import read_json
from metal_gen.text.messages import Message

FILE = "chat_template.jinja"
OLD_FILE = "chat_template.json"
THINKING_SWITCH = "enable_thinking"
SPECIAL_TOKENS = ("bos_token", "eos_token", "pad_token", "unk_token")


class MessagesRefusedError(CheckpointError):
    """A chat template has no place for these messages."""


class ChatTemplate:
    """A template that turns messages into a prompt.

    Args:
        source: Jinja text.
        special_tokens: Texts that it may name, such as `bos_token`.

    Raises:
        CheckpointError: It is not valid Jinja.
    """

    def __init__(self, source: str, special_tokens: Mapping[str, str] | None = None) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _GenerationTag]
        )
        environment.globals.update(raise_exception=_refuse, strftime_now=_strftime_now)
        environment.globals.update(special_tokens or {})
        environment.filters["tojson"] = _to_json
        self.has_thinking_switch = THINKING_SWITCH in source
        try:
            self._template = environment.from_string(source)
        except TemplateError as error:
            raise CheckpointError(
                f"the chat template is not valid: {error}", "use --raw to do without it"
            ) from error

    def render(self, messages: Sequence[Message], *, thinking: bool | None = None) -> str:
        """Return the prompt that asks for the assistant's next message.

        Args:
            messages: Each with `role` and `content`.
            thinking: Sets the template's `enable_thinking`; None leaves it to the template.

        Raises:
            CheckpointError: The template raised an error, or gave half a character.
        """
        variables: dict[str, Any] = {} if thinking is None else {THINKING_SWITCH: thinking}
        try:
            text = self._template.render(messages=list(messages), add_generation_prompt=True, **variables)
            text.encode()
            return text
        except Exception as error:  # A template can raise anything that Python can.
            raise MessagesRefusedError(
                f"the chat template refused the messages: {error}", "use --raw to do without it"
            ) from error


def read_chat_template(folder: Path, tokenizer_config: dict[str, Any]) -> ChatTemplate | None:
    """Find the template: chat_template.jinja, then tokenizer_config.json, then chat_template.json.

    Returns:
        None where the checkpoint has none, as base models do.
    """
    special_tokens = _special_tokens(tokenizer_config)
    if (folder / FILE).is_file():
        try:
            return ChatTemplate((folder / FILE).read_text(encoding="utf-8"), special_tokens)
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(f"cannot read {folder / FILE}: {error}") from error
    source = tokenizer_config.get("chat_template")
    if source is None and (folder / OLD_FILE).is_file():
        source = read_json(folder / OLD_FILE).get("chat_template")
    if isinstance(source, list):
        named = {entry.get("name"): entry.get("template") for entry in source if isinstance(entry, dict)}
        source = named.get("default")
    if source is not None and not isinstance(source, str):
        raise CheckpointError(
            f"the chat template of {folder} is not a text: {type(source).__name__}",
            "use --raw to do without it",
        )
    return None if source is None else ChatTemplate(source, special_tokens)


def _special_tokens(tokenizer_config: dict[str, Any]) -> dict[str, str]:
    """The tokens that transformers hands to templates, each a text or an object with one."""
    named = {name: tokenizer_config.get(name) for name in SPECIAL_TOKENS}
    texts = {
        name: token.get("content") if isinstance(token, dict) else token for name, token in named.items()
    }
    return {name: text for name, text in texts.items() if isinstance(text, str)}


class _GenerationTag(Extension):
    """Ignores `{% generation %}`, which marks the assistant's words for training."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format)


def _to_json(value: object, indent: int | None = None) -> str:
    """Jinja's own filter escapes HTML characters, which a prompt must not have escaped."""
    return json.dumps(value, ensure_ascii=False, indent=indent)
