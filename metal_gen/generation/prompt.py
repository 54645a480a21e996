"""From what a person asks to the token ids that the model continues."""

from collections.abc import Sequence

from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.errors import UsageError
from metal_gen.text.encoded_prompt import Prompt
from metal_gen.text.messages import SYSTEM, USER, Message
from metal_gen.text.thinking import THINK_OPEN


def encode_prompt(
    checkpoint: Checkpoint,
    prompt: str | Sequence[Message],
    *,
    system: str | None = None,
    raw: bool = False,
    thinking: bool | None = None,
    most_tokens: int | None = None,
) -> Prompt:
    """Render and encode a prompt.

    Args:
        checkpoint: Gives the tokenizer and the chat template.
        prompt: One user message as text, or a conversation of messages.
        system: A system message to put first.
        raw: Encode the text as it is, without the template.
        thinking: Sets the template's thinking switch where it has one.
        most_tokens: As for `Tokenizer.encode`.

    Raises:
        UsageError: The prompt is empty, or is a conversation and there is no template.
        DoesNotFitError: The text has more than `most_tokens`, by its length alone.
        CheckpointError: The template refused it.
    """
    if not isinstance(prompt, str | list | tuple):
        raise UsageError(f"the prompt must be a text or a list of messages, not {type(prompt).__name__}")
    if not prompt:
        raise UsageError("the prompt is empty")
    template = None if raw else checkpoint.chat_template
    notices = []
    if template is None:
        reason = "raw is set" if raw else "this checkpoint has no chat template"
        if not isinstance(prompt, str):
            raise UsageError(f"a conversation needs a chat template, and {reason}")
        if not raw:
            notices.append(f"{reason}: the prompt is continued as it is")
        if system is not None:
            notices.append(f"the system message is left out: {reason}")
        if thinking is not None:
            notices.append(f"the thinking switch has no effect: {reason}")
        text = prompt
        ids = checkpoint.tokenizer.encode(text, add_special_tokens=True, most_tokens=most_tokens)
    else:
        messages = _messages(prompt)
        if system is not None:
            messages.insert(0, {"role": SYSTEM, "content": system})
        if thinking is not None and not template.has_thinking_switch:
            notices.append("the thinking switch has no effect: this checkpoint's chat template has none")
        text = template.render(messages, thinking=thinking)
        ids = checkpoint.tokenizer.encode(text, add_special_tokens=False, most_tokens=most_tokens)
    if not ids:
        raise UsageError("the prompt has no tokens")
    opens_thinking = template is not None and text.rstrip().endswith(THINK_OPEN)
    return Prompt(ids, opens_thinking, template is not None, tuple(notices))


def _messages(prompt: str | Sequence[Message]) -> list[Message]:
    if isinstance(prompt, str):
        return [{"role": USER, "content": prompt}]
    for number, message in enumerate(prompt, 1):
        parts = [message.get(name) for name in ("role", "content")] if isinstance(message, dict) else [None]
        if not all(isinstance(part, str) for part in parts):
            raise UsageError(
                f"message {number} of the conversation must have a role and a content, both texts"
            )
    return list(prompt)
