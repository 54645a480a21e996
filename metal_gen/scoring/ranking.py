"""Ranks choices by their probability after a prompt, and documents by their relevance to a query."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from metal_gen.engine.scoring.scorer import ScoreRequest
from metal_gen.errors import DoesNotFitError, UsageError
from metal_gen.scoring.requests import RequestMaker
from metal_gen.scoring.reranker import INSTRUCTION, RerankerPrompt, is_reranker, probability_of_yes
from metal_gen.scoring.text_score import finite_sum
from metal_gen.text.messages import Message

# Source: "Improving Passage Retrieval with Zero-Shot Question Generation", arXiv 2204.07496.
QUERY_INSTRUCTION = "Please write a question based on this passage."


class Method(StrEnum):
    """What the order comes from."""

    SUM = "sum"
    MEAN = "mean"
    RERANKER = "reranker"
    LIKELIHOOD = "likelihood"


DOCUMENT_METHODS = (Method.RERANKER, Method.LIKELIHOOD)
CHOICE_METHODS = (Method.SUM, Method.MEAN)


@dataclass(frozen=True)
class Ranked:
    """A choice or a document with its score.

    Attributes:
        index: Its place among those given, from 0.
        text: The choice or the document.
        score: What the order comes from; the larger, the better.
        tokens: Number of tokens that were scored; 0 with a reranker.
        logprob: Sum of their log-probabilities; None with a reranker.
    """

    index: int
    text: str
    score: float
    tokens: int = 0
    logprob: float | None = None


@dataclass(frozen=True)
class Ranking:
    """Choices or documents, the best first; those with the same score in the order given.

    Attributes:
        method: What the scores are.
        items: In order.
        prompt_tokens: Number of tokens before the choices; 0 for documents.
        notices: What a person should know about the prompt.
    """

    method: Method
    items: tuple[Ranked, ...]
    prompt_tokens: int = 0
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Choices:
    """A prompt, and texts that could follow it."""

    prompt: str | Sequence[Message]
    choices: Sequence[str]


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
        return Documents(_text(query, "the query"), _texts(documents, "document"))
    raise UsageError(
        "there must be a prompt and choices, or a query and documents",
        "--prompt with --choice for each text, or --query with --document for each",
    )


def _texts(given: object, kind: str) -> list[str]:
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise UsageError(f"{kind}s must be a list of texts, not {type(given).__name__}")
    return [_text(each, f"{kind} {number}") for number, each in enumerate(given, 1)]


def _text(given: object, what: str) -> str:
    if not isinstance(given, str):
        raise UsageError(f"{what} must be a text, not {type(given).__name__}")
    return given


@dataclass(frozen=True)
class RankOptions:
    """How to rank.

    Attributes:
        by: For choices, `SUM` or `MEAN` of the log-probabilities of their tokens.
        method: For documents; None decides by the name of the model.
        instruction: What makes a document fit, or asks for a query; None is the usual one.
        top: Most items of a ranking; None is all.
    """

    by: Method = Method.SUM
    method: Method | None = None
    instruction: str | None = None
    top: int | None = None

    def __post_init__(self) -> None:
        """Refuse methods that do not belong there.

        Raises:
            UsageError: A value cannot be used.
        """
        if self.by not in CHOICE_METHODS:
            raise UsageError(f"choices are ranked by sum or mean, not by {self.by}")
        if self.method is not None and self.method not in DOCUMENT_METHODS:
            raise UsageError(f"documents are ranked by reranker or likelihood, not by {self.method}")
        if self.top is not None and self.top < 1:
            raise UsageError(f"top must be at least 1: {self.top}")
        if self.instruction is not None and not _text(self.instruction, "the instruction").strip():
            raise UsageError("the instruction is empty", "leave it out for the usual one")

    @classmethod
    def named(cls, by: str, method: str | None, instruction: str | None, top: int | None) -> "RankOptions":
        """Return the options with these names of methods.

        Raises:
            UsageError: There is no such method, or another value cannot be used.
        """
        of_documents = None if method is None else _method(method, DOCUMENT_METHODS)
        return cls(_method(by, CHOICE_METHODS), of_documents, instruction, top)

    def require_for(self, task: Choices | Documents) -> None:
        """Check that the only task of a run uses all options. Rows use those of their kind.

        Raises:
            UsageError: One has no effect on the task.
        """
        if isinstance(task, Documents):
            return
        for name, value in (("instruction", self.instruction), ("method", self.method)):
            if value is not None:
                raise UsageError(
                    f"{name} has no effect on choices: it says how documents are ranked for a query",
                    f"leave {name} out, or give a query and documents",
                )


@dataclass
class RankJob:
    """A ranking that is being computed.

    Args:
        maker: Makes requests for the model.
        task: What to rank.
        options: How.

    Raises:
        UsageError: There is nothing to rank, or a text is empty.
        MetalGenError: The prompt cannot be used.
    """

    maker: RequestMaker
    task: Choices | Documents
    options: RankOptions
    method: Method = field(init=False)
    prompt_tokens: int = 0
    notices: tuple[str, ...] = ()
    _found: dict[int, Ranked] = field(default_factory=dict)
    _numbers: dict[ScoreRequest, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the texts, and choose the method."""
        kind, texts = ("choice", self.texts) if isinstance(self.task, Choices) else ("document", self.texts)
        if not texts:
            raise UsageError(f"there are no {kind}s")
        for number, text in enumerate(texts, 1):
            if not text:
                raise UsageError(f"{kind} {number} is empty", "write it in full, or leave it out")
        if isinstance(self.task, Choices):
            self.method = self.options.by
        elif self.options.method is not None:
            self.method = self.options.method
        else:
            is_asked = is_reranker(self.maker.settings.model)
            self.method = Method.RERANKER if is_asked else Method.LIKELIHOOD
        if isinstance(self.task, Documents) and not self.task.query:
            raise UsageError("the query is empty")

    @property
    def texts(self) -> Sequence[str]:
        """The choices or documents."""
        return self.task.choices if isinstance(self.task, Choices) else self.task.documents

    def requests(self) -> Iterator[ScoreRequest]:
        """Yield a request for each text, in order; each is made when it is asked for.

        Raises:
            MetalGenError: A text cannot be encoded, or does not fit.
        """
        for number, request in enumerate(self._requests()):
            self._numbers[request] = number
            yield request

    def _requests(self) -> Iterator[ScoreRequest]:
        maker, task = self.maker, self.task
        if isinstance(task, Choices):
            prompt = maker.prompt(task.prompt)
            self.prompt_tokens, self.notices = len(prompt.ids), prompt.notices
            for number, choice in enumerate(task.choices, 1):
                yield maker.answer(prompt, choice, f"choice {number}")
        elif self.method is Method.RERANKER:
            instruction = self.options.instruction or INSTRUCTION
            yield from RerankerPrompt(maker, task.query, instruction).requests(task.documents)
        else:
            instruction = self.options.instruction or QUERY_INSTRUCTION
            # Where no template ends the prompt, a line end does.
            end = "\n" if maker.settings.raw or maker.checkpoint.chat_template is None else ""
            for number, document in enumerate(task.documents, 1):
                try:
                    prompt = maker.prompt(f"Passage: {document}\n{instruction}{end}")
                    request = maker.answer(prompt, task.query, "query")
                except DoesNotFitError as error:
                    raise DoesNotFitError(f"document {number}: {error.message}", error.hint) from None
                self.notices = prompt.notices
                yield request

    def take(self, request: ScoreRequest) -> None:
        """Take a complete request.

        Raises:
            LogitsError: A log-probability is not a number.
        """
        index = self._numbers.pop(request)
        total, text = finite_sum(request), self.texts[index]
        if self.method is Method.RERANKER:
            self._found[index] = Ranked(index, text, probability_of_yes(request))
            return
        tokens = len(request.targets)
        score = total if self.method is Method.SUM else total / tokens
        self._found[index] = Ranked(index, text, score, tokens, total)

    def ranking(self) -> Ranking:
        """Return the ranking of all texts."""
        items = [self._found[index] for index in range(len(self._found))]
        items.sort(key=lambda item: -item.score)
        return Ranking(self.method, tuple(items[: self.options.top]), self.prompt_tokens, self.notices)


def _method(name: str, among: Sequence[Method]) -> Method:
    try:
        return Method(name)
    except ValueError:
        raise UsageError(f"there is no method {name!r}", f"there are {', '.join(among)}") from None
