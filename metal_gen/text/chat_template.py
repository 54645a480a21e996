"""Renders messages with a checkpoint's chat template, in a sandbox.

Source: `chat_template_utils.py` of Hugging Face transformers; the environment is the same as there.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from threading import Lock
from typing import Any, NoReturn

from jinja2 import TemplateError, TemplateSyntaxError

from metal_gen.errors import CheckpointError
from metal_gen.files.json_file import read_json
from metal_gen.text.messages import TOOL_CALLS, Message, with_parsed_arguments
from metal_gen.text.template.limits import Allowance, TemplateLimitError
from metal_gen.text.template.sandbox import LONGEST_SOURCE, TemplateEnvironment

FILE = "chat_template.jinja"
OLD_FILE = "chat_template.json"
THINKING_SWITCH = "enable_thinking"
CLOCK = "strftime_now"
SPECIAL_TOKENS = ("bos_token", "eos_token", "pad_token", "unk_token")
# Fields of a message that hold the thinking before it. Most templates use the first.
REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")
LONGEST_REASON, LONGEST_DATE = 300, 1000
WITHOUT_IT = "use --raw to skip the chat template"


class MessagesRefusedError(CheckpointError):
    """The chat template does not accept these messages."""


class ChatTemplate:
    """A template that turns messages into a prompt.

    Args:
        source: Jinja source.
        special_tokens: Texts that the template may use by name, such as `bos_token`.

    Attributes:
        names: Names of the variables in the template.
        has_xml_calls: Whether calls of functions are written as XML rather than JSON.
        moment: Time to use as the current time; None is the time of each rendering.

    Raises:
        CheckpointError: The source is not valid Jinja, is too long, or needs other templates.
    """

    def __init__(self, source: str, special_tokens: Mapping[str, str] | None = None) -> None:
        self._environment = environment = TemplateEnvironment()
        self._rendering = Lock()
        self.moment: datetime | None = None
        self.has_xml_calls = "<function=" in source
        environment.globals.update({"raise_exception": _refuse, CLOCK: self._formatted_now})
        environment.globals.update(special_tokens or {})
        try:
            self._template, self.names = environment.read(source)
        except Exception as error:  # Jinja lets any error of Python's compiler through.
            raise CheckpointError(f"the chat template is not valid: {_reason(error)}", WITHOUT_IT) from error

    @property
    def has_thinking_switch(self) -> bool:
        """Whether the template uses `enable_thinking`."""
        return THINKING_SWITCH in self.names

    @property
    def tells_time(self) -> bool:
        """Whether the rendered text may depend on the time."""
        return CLOCK in self.names

    def _formatted_now(self, format: str) -> str:
        if len(format) > LONGEST_DATE:
            raise TemplateError(f"a date format has more than {LONGEST_DATE} characters")
        return (self.moment or datetime.now()).strftime(format)

    def render(
        self,
        messages: Sequence[Message],
        *,
        thinking: bool | None = None,
        arguments: Mapping[str, object] | None = None,
    ) -> str:
        """Return the prompt that asks for the assistant's next message.

        Args:
            messages: Messages, each with `role` and `content`.
            thinking: Value of the template's `enable_thinking`; None leaves it to the template.
            arguments: Other variables by name.

        Raises:
            MessagesRefusedError: The template raised an error, produced a lone surrogate, or took too
                much time or memory.
        """
        variables: dict[str, Any] = {
            "messages": [_with_arguments(_with_reasoning(message)) for message in messages],
            # Names that every template may expect.
            "tools": None,
            "documents": None,
            "add_generation_prompt": True,
            **(arguments or {}),
        }
        if thinking is not None:
            variables[THINKING_SWITCH] = thinking
        try:
            with self._rendering:
                self._environment.allowance = Allowance(variables)
                text = self._template.render(variables)
            text.encode()
            return text
        except TemplateLimitError as error:
            raise MessagesRefusedError(f"the chat template was stopped: {error}", WITHOUT_IT) from error
        except Exception as error:  # A template can raise anything that Python can.
            raise MessagesRefusedError(
                f"the chat template refused the messages: {_reason(error)}", WITHOUT_IT
            ) from error


def _with_reasoning(message: Message) -> Message:
    """Return a message with its reasoning under every name that templates use."""
    reasoning = next((message[name] for name in REASONING_FIELDS if name in message), None)
    if reasoning is None:
        return message
    return {**dict.fromkeys(REASONING_FIELDS, reasoning), **message, REASONING_FIELDS[0]: reasoning}


def _with_arguments(message: Message) -> Message:
    """Return a message whose calls have their arguments as objects, which every template can write."""
    if not message.get(TOOL_CALLS):
        return message
    return {**message, TOOL_CALLS: [with_parsed_arguments(call) for call in message[TOOL_CALLS]]}


def _reason(error: Exception) -> str:
    """Return the message of an error, on one line of limited length."""
    if isinstance(error, MemoryError):
        return "it runs out of memory"
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, TemplateSyntaxError):
        text = f"{error.message} in line {error.lineno}"
    elif isinstance(error, SyntaxError):
        # The line number would refer to the code that Jinja generates from the template.
        text = error.msg
    text = text.encode(errors="replace").decode()
    return text if len(text) <= LONGEST_REASON else text[: LONGEST_REASON - 3] + "..."


def read_chat_template(folder: Path, tokenizer_config: dict[str, Any]) -> ChatTemplate | None:
    """Find the template: chat_template.jinja, then tokenizer_config.json, then chat_template.json.

    Returns:
        The template; None if the checkpoint has none, like base models.
    """
    special_tokens = _special_tokens(tokenizer_config)
    if (folder / FILE).is_file():
        return ChatTemplate(_read_source(folder / FILE), special_tokens)
    source = tokenizer_config.get("chat_template")
    if source is None and (folder / OLD_FILE).is_file():
        source = read_json(folder / OLD_FILE).get("chat_template")
    if isinstance(source, list):
        entries = [entry for entry in source if isinstance(entry, dict)]
        source = next((entry.get("template") for entry in entries if entry.get("name") == "default"), None)
    if source is not None and not isinstance(source, str):
        raise CheckpointError(
            f"the chat template of {folder} is not a text: {type(source).__name__}", WITHOUT_IT
        )
    return None if source is None else ChatTemplate(source, special_tokens)


def _read_source(path: Path) -> str:
    """Read a file, but not more than a template may have."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            return file.read(LONGEST_SOURCE + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error


def _special_tokens(tokenizer_config: dict[str, Any]) -> dict[str, str]:
    """Return the tokens that transformers passes to templates, each a text or an object with one."""
    named = {name: tokenizer_config.get(name) for name in SPECIAL_TOKENS}
    texts = {
        name: token.get("content") if isinstance(token, dict) else token for name, token in named.items()
    }
    return {name: text for name, text in texts.items() if isinstance(text, str)}


def _refuse(message: object) -> NoReturn:
    raise TemplateError(str(message))
