"""A prompt as token ids, and what is known of it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Prompt:
    """A prompt, encoded.

    Attributes:
        ids: At least one.
        opens_thinking: The chat template opens a thinking block, which the answer continues.
        is_chat: It was rendered by a chat template.
        prefill: The answer's beginning, which the ids end with.
        notices: What a person should know about how it was made.
    """

    ids: list[int]
    opens_thinking: bool = False
    is_chat: bool = False
    prefill: str = ""
    notices: tuple[str, ...] = ()
