"""Turns the user's input into the token ids that the model continues."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from metal_gen.cache.common_prefix import common_prefix_length
from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.config.settings import Settings
from metal_gen.errors import MetalGenError, UsageError
from metal_gen.text.chat_template import THINKING_SWITCH, ChatTemplate, MessagesRefusedError
from metal_gen.text.encoded_prompt import Prompt
from metal_gen.text.messages import SYSTEM, TOOL_CALLS, USER, Message
from metal_gen.text.thinking import THINK_OPEN, ThinkingSplitter

if TYPE_CHECKING:
    from metal_gen.generation.prefixes.prompt_prefix import PromptPrefix

# Notices for settings that need a chat template.
LOST = (
    "the system message is left out",
    "the thinking switch has no effect",
    "template_arg has no effect",
)
TOOLS = "tools"
PREFILLED_THINKING = "the chat template opens a thinking block, so the prefill begins the thinking"


def prefix_as_set(settings: Settings) -> "PromptPrefix | None":
    """Read the prefix file that the settings name; None without one.

    Raises:
        UsageError: It cannot be read.
    """
    if settings.prefix_file is None:
        return None
    from metal_gen.generation.prefixes.prompt_prefix import read_prefix

    return read_prefix(settings.prefix_file)


def encode_as_set(
    checkpoint: Checkpoint,
    prompt: str | Sequence[Message],
    settings: Settings,
    *,
    most_tokens: int | None = None,
    prefix: "PromptPrefix | None" = None,
) -> Prompt:
    """Render and encode a prompt according to the settings. The rest is as in `encode_prompt`.

    Args:
        checkpoint: As in `encode_prompt`.
        prompt: As in `encode_prompt`.
        settings: Settings in force.
        most_tokens: As in `encode_prompt`.
        prefix: The prefix from `prefix_as_set`, for a caller with several prompts; None reads it here.
    """
    tools = settings.functions
    encode = partial(
        encode_prompt,
        checkpoint,
        system=settings.system,
        raw=settings.raw,
        thinking=settings.thinking,
        prefill=settings.prefill or "",
        template_args=(*((TOOLS, tools),) * bool(tools), *settings.template_arg),
        most_tokens=most_tokens,
    )
    if not (settings.prefix_file or settings.prefix_cache):
        return encode(prompt)
    from metal_gen.generation.prefixes.prompt_prefix import PromptPrefix

    require_prompt(prompt)
    prefix = prefix or prefix_as_set(settings) or PromptPrefix()
    if settings.system is not None:
        prefix.require_no_system()
    encoded = encode(prefix.before(prompt))
    if not settings.prefix_cache:
        return encoded
    try:
        other = encode(prefix.before_another(prompt))
    except MetalGenError:
        return encoded  # The template wants more than one message.
    return replace(encoded, stable_tokens=common_prefix_length(encoded.ids, other.ids))


def require_prompt(prompt: object) -> None:
    """Check that a prompt is a text or a list of messages, and not empty.

    Raises:
        UsageError: It is neither, or is empty.
    """
    if not isinstance(prompt, str | list | tuple):
        raise UsageError(f"the prompt must be a text or a list of messages, not {type(prompt).__name__}")
    if not prompt:
        raise UsageError("the prompt is empty")
    if not isinstance(prompt, str):
        _messages(prompt)


def encode_prompt(
    checkpoint: Checkpoint,
    prompt: str | Sequence[Message],
    *,
    system: str | None = None,
    raw: bool = False,
    thinking: bool | None = None,
    prefill: str = "",
    template_args: Sequence[tuple[str, object]] = (),
    most_tokens: int | None = None,
) -> Prompt:
    """Render and encode a prompt.

    Args:
        checkpoint: Checkpoint with the tokenizer and the chat template.
        prompt: One user message as text, or a conversation of messages.
        system: System message to put first.
        raw: Encode the text unchanged, without the template.
        thinking: Value of the template's thinking switch, if it has one.
        prefill: Beginning of the answer; it comes last, with or without a template.
        template_args: Other variables of the template.
        most_tokens: Token limit, as in `Tokenizer.encode`.

    Raises:
        UsageError: The prompt is empty; it is a conversation, and there is no template; or the thinking
            switch is set twice.
        DoesNotFitError: The length of the text alone shows that it has more than `most_tokens`.
        CheckpointError: The template refused the prompt.
    """
    require_prompt(prompt)
    template = None if raw else checkpoint.chat_template
    arguments = dict(template_args)
    text, opens_thinking = prompt, False
    if template is None:
        reason = "raw is set" if raw else "this checkpoint has no chat template"
        if not isinstance(text, str):
            raise UsageError(f"a conversation needs a chat template, and {reason}")
        given = (system is not None, thinking is not None, bool(arguments))
        notices = [] if raw else [f"{reason}: the prompt is continued as it is"]
        notices += [f"{lost}: {reason}" for lost, is_given in zip(LOST, given, strict=True) if is_given]
    else:
        messages = _messages(prompt)
        if system is not None:
            messages.insert(0, {"role": SYSTEM, "content": system})
        if thinking is not None and THINKING_SWITCH in arguments:
            raise UsageError(
                f"thinking and template_arg {THINKING_SWITCH} are both set", "leave one of them out"
            )
        render = partial(template.render, thinking=thinking, arguments=arguments)
        text = render(messages)
        notices = _without_effect(template, arguments)
        if thinking is not None and (
            reason := _why_idle(template, partial(render, messages), thinking, text)
        ):
            notices.append(f"the thinking switch has no effect: this checkpoint's chat template {reason}")
        opens_thinking = _opens_thinking(text, messages, render)
    ids = checkpoint.tokenizer.encode(
        text + prefill, add_special_tokens=template is None, most_tokens=most_tokens
    )
    if not ids:
        what = "its text" if template is None else "the output of the chat template"
        raise UsageError(f"the prompt is empty: {what} has no tokens")
    encoded = Prompt(ids, opens_thinking, template is not None, prefill, tuple(notices))
    if prefill and opens_thinking and ThinkingSplitter(encoded).is_thinking:
        return replace(encoded, notices=(*notices, PREFILLED_THINKING))
    return encoded


def _without_effect(template: ChatTemplate, arguments: Mapping[str, object]) -> list[str]:
    """Return a notice for each variable that the template does not use."""
    return [
        f"{'' if name == TOOLS else 'template_arg '}{name} has no effect: "
        "this checkpoint's chat template does not use it"
        for name in arguments
        if name not in template.names
    ]


def _why_idle(template: ChatTemplate, render: Callable[..., str], thinking: bool, text: str) -> str:
    """Explain why the thinking switch makes no difference to a prompt. Return "" if it does."""
    if not template.has_thinking_switch:
        return "has none"
    try:
        return "makes the same prompt either way" if render(thinking=not thinking) == text else ""
    except MessagesRefusedError:
        return ""


def _opens_thinking(text: str, messages: list[Message], render: Callable[[list[Message]], str]) -> bool:
    """Return whether a rendered prompt ends in a thinking tag that comes from the template itself."""
    if not text.rstrip().endswith(THINK_OPEN):
        return False
    untagged = [
        {
            name: value.replace(THINK_OPEN, " ") if isinstance(value, str) else value
            for name, value in message.items()
        }
        for message in messages
    ]
    return untagged == messages or render(untagged).rstrip().endswith(THINK_OPEN)


def _messages(prompt: str | Sequence[Message]) -> list[Message]:
    if isinstance(prompt, str):
        return [{"role": USER, "content": prompt}]
    for number, message in enumerate(prompt, 1):
        parts = [message.get(name) for name in ("role", "content")] if isinstance(message, dict) else [None]
        if parts[-1] is None and isinstance(message, dict) and message.get(TOOL_CALLS):
            parts.pop()
        if not all(isinstance(part, str) for part in parts):
            raise UsageError(
                f"message {number} of the conversation must have a role and a content, both texts"
            )
    return [
        {"content": "", **{name: value for name, value in message.items() if value is not None}}
        for message in prompt
    ]
