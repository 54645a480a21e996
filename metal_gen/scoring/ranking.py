"""Ranks choices by their probability after a prompt, and documents by their relevance to a query."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from metal_gen.engine.scoring.scorer import ScoreRequest
from metal_gen.errors import DoesNotFitError, UsageError
from metal_gen.scoring.requests import RequestMaker
from metal_gen.scoring.reranker import INSTRUCTION, RerankerPrompt, is_reranker, probability_of_yes
from metal_gen.scoring.tasks import Choices, Documents, text_argument
from metal_gen.scoring.text_score import finite_sum

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
class RankOptions:
    """How to rank.

    Attributes:
        by: For choices, `SUM` or `MEAN` of the log-probabilities of their tokens; None is `SUM`.
        method: For documents; None decides by the name of the model.
        instruction: What makes a document fit, or asks for a query; None is the usual one.
        top: Most items of a ranking; None is all.
    """

    by: Method | None = None
    method: Method | None = None
    instruction: str | None = None
    top: int | None = None

    def __post_init__(self) -> None:
        """Refuse methods that do not belong there.

        Raises:
            UsageError: A value cannot be used.
        """
        if self.by is not None and self.by not in CHOICE_METHODS:
            raise UsageError(f"choices are ranked by sum or mean, not by {self.by}")
        if self.method is not None and self.method not in DOCUMENT_METHODS:
            raise UsageError(f"documents are ranked by reranker or likelihood, not by {self.method}")
        if self.top is not None and self.top < 1:
            raise UsageError(f"top must be at least 1: {self.top}")
        if self.instruction is not None and not text_argument(self.instruction, "the instruction").strip():
            raise UsageError("the instruction is empty", "leave it out for the usual one")

    @classmethod
    def named(
        cls, by: str | None, method: str | None, instruction: str | None, top: int | None
    ) -> "RankOptions":
        """Return the options with these names of methods.

        Raises:
            UsageError: There is no such method, or another value cannot be used.
        """
        of_choices = None if by is None else _method(by, CHOICE_METHODS)
        of_documents = None if method is None else _method(method, DOCUMENT_METHODS)
        return cls(of_choices, of_documents, instruction, top)

    @property
    def choice_method(self) -> Method:
        """The method for choices."""
        return self.by or Method.SUM

    def method_for(self, model: str | None) -> Method:
        """Return the method for documents with a model, given by its name."""
        return self.method or (Method.RERANKER if is_reranker(model) else Method.LIKELIHOOD)

    def require_for(self, task: Choices | Documents) -> None:
        """Check that the only task of a run uses all options. Rows use those of their kind.

        Raises:
            UsageError: One has no effect on the task.
        """
        if isinstance(task, Documents):
            if self.by is not None:
                raise UsageError(
                    "by has no effect on documents: it says how choices are ranked after a prompt",
                    "leave by out, or give a prompt and choices",
                )
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
            self.method = self.options.choice_method
        else:
            self.method = self.options.method_for(self.maker.settings.model)
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
