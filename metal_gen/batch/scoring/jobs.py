"""The rows that are being scored: what each asks for, and its record when all of it is there."""

from collections import deque
from collections.abc import Iterator
from typing import Protocol

from metal_gen.batch.executor import RowResult
from metal_gen.batch.input.rows import Row
from metal_gen.batch.scoring.records import ranking_record, score_record
from metal_gen.batch.scoring.rows import RankRow, ScoreRow
from metal_gen.batch.token_texts import TokenTexts
from metal_gen.engine.scoring.scorer import ScoreRequest
from metal_gen.scoring.ranking import RankJob, RankOptions
from metal_gen.scoring.requests import RequestMaker, TextRequests
from metal_gen.scoring.text_score import ScoreSum


class Job(Protocol):
    """A row that is being scored.

    Attributes:
        requests: What is still to be asked; each request is made when it is asked for.
    """

    requests: Iterator[ScoreRequest]

    @property
    def row(self) -> Row:
        """The row."""

    def take(self, request: ScoreRequest) -> None:
        """Take a complete request.

        Raises:
            LogitsError: A log-probability is not a number.
        """

    def result(self) -> RowResult:
        """Return the record, when all requests have been taken."""


class ScoreJob:
    """A text that is being scored.

    Args:
        row: Text with its prompt.
        maker: Makes requests for the model.
        stride: Stride of windows.
        tokens: Names the tokens, if each is listed.

    Raises:
        MetalGenError: Prompt or text cannot be used.
    """

    def __init__(self, row: ScoreRow, maker: RequestMaker, stride: int, tokens: TokenTexts | None) -> None:
        self.row = row
        self._tokens = tokens
        self._sum = ScoreSum(keeps_tokens=tokens is not None)
        self._begun: deque[ScoreRequest] = deque()
        self._prompt_tokens = 0
        self._notices: tuple[str, ...] = ()
        self._text: TextRequests | None = None
        if row.prompt is None:
            self._text = maker.text([row.text], stride)
            self.requests = self._noted(iter(self._text))
            return
        prompt = maker.prompt(row.prompt)
        self._prompt_tokens, self._notices = len(prompt.ids), prompt.notices
        self.requests = self._noted(iter([maker.answer(prompt, row.text)]))

    def _noted(self, requests: Iterator[ScoreRequest]) -> Iterator[ScoreRequest]:
        for request in requests:
            self._begun.append(request)
            yield request

    def take(self, request: ScoreRequest) -> None:
        """See `Job`; windows are added in their order."""
        while self._begun and self._begun[0].is_complete:
            self._sum.add(self._begun.popleft())

    def result(self) -> RowResult:
        """See `Job`."""
        nbytes = len(self.row.text.encode()) if self._text is None else self._text.nbytes
        score = self._sum.score(nbytes, prompt_tokens=self._prompt_tokens)
        record = {"id": self.row.id, **self.row.carried, **score_record(score, self._tokens)}
        return RowResult(record, self._prompt_tokens, score.tokens, self._notices)


class RankingJob:
    """Texts that are being ranked.

    Args:
        row: Texts with their prompt or query.
        maker: Makes requests for the model.
        options: How to rank.

    Raises:
        MetalGenError: The texts cannot be ranked.
    """

    def __init__(self, row: RankRow, maker: RequestMaker, options: RankOptions) -> None:
        self.row = row
        self._job = RankJob(maker, row.task, options)
        self.requests = self._job.requests()
        self._scored = 0

    def take(self, request: ScoreRequest) -> None:
        """See `Job`."""
        self._scored += len(request.targets)
        self._job.take(request)

    def result(self) -> RowResult:
        """See `Job`."""
        ranking = self._job.ranking()
        record = {"id": self.row.id, **self.row.carried, **ranking_record(ranking)}
        return RowResult(record, ranking.prompt_tokens, self._scored, ranking.notices)
