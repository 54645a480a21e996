"""A prompt as token ids, with its properties."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Prompt:
    """An encoded prompt.

    Attributes:
        ids: Token ids, at least one.
        opens_thinking: Whether the chat template opens a thinking block, which the answer continues.
        is_chat: Whether a chat template rendered the prompt.
        prefill: Beginning of the answer, which ends the prompt.
        notices: Notices to the user about how the prompt was made.
        stable_tokens: Number of tokens at the beginning that come from a prefix file or a system message;
            counted for a prefix cache only.
        has_answers: Whether answers of the model are in it, which a prefix cache does not store.
    """

    ids: list[int]
    opens_thinking: bool = False
    is_chat: bool = False
    prefill: str = ""
    notices: tuple[str, ...] = ()
    stable_tokens: int = 0
    has_answers: bool = False
