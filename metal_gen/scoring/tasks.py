"""What can be ranked: choices after a prompt, or documents for a query."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from metal_gen.errors import UsageError
from metal_gen.text.messages import ASSISTANT, Message


@dataclass(frozen=True)
class Choices:
    """A prompt, and texts that could follow it.

    Raises:
        UsageError: The prompt is a conversation that the assistant has answered already.
    """

    prompt: str | Sequence[Message]
    choices: Sequence[str]

    def __post_init__(self) -> None:
        """Refuse a conversation that leaves nothing to answer; whether it is one is checked later."""
        last = self.prompt[-1] if self.prompt and isinstance(self.prompt, list | tuple) else None
        if isinstance(last, dict) and last.get("role") == ASSISTANT:
            raise UsageError(
                "the last message is the assistant's, and a choice is the assistant's next message",
                "leave it out; if it begins the answer, put it at the beginning of each choice",
            )


@dataclass(frozen=True)
class Documents:
    """A query, and documents that could answer it."""

    query: str
    documents: Sequence[str]


def task_of(
    prompt: str | Sequence[Message] | None,
    choices: Sequence[str] | None,
    query: str | None,
    documents: Sequence[str] | None,
) -> Choices | Documents:
    """Return what to rank.

    Raises:
        UsageError: The arguments are not a prompt with choices, or a query with documents.
    """
    if prompt is not None and choices is not None and query is None and documents is None:
        return Choices(prompt, _texts(choices, "choice"))
    if query is not None and documents is not None and prompt is None and choices is None:
        return Documents(text_argument(query, "the query"), _texts(documents, "document"))
    given = {"prompt": prompt, "choices": choices, "query": query, "documents": documents}
    raise UsageError(
        _why_no_task([name for name, value in given.items() if value is not None]),
        "--prompt with --choice for each text, or --query with --document for each",
    )


def _why_no_task(given: Sequence[str]) -> str:
    missing = {
        "prompt": "are no choices",
        "choices": "is no prompt",
        "query": "are no documents",
        "documents": "is no query",
    }
    if not given:
        return "there must be a prompt and choices, or a query and documents"
    if len(given) == 1:
        return f"there {missing[given[0]]} for the {given[0]}"
    return f"{', '.join(given[:-1])} and {given[-1]} cannot be given together"


def _texts(given: object, kind: str) -> list[str]:
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise UsageError(f"{kind}s must be a list of texts, not {type(given).__name__}")
    return [text_argument(each, f"{kind} {number}") for number, each in enumerate(given, 1)]


def text_argument(given: object, what: str) -> str:
    """Return an argument that must be a text.

    Raises:
        UsageError: It is something else.
    """
    if not isinstance(given, str):
        raise UsageError(f"{what} must be a text, not {type(given).__name__}")
    return given
