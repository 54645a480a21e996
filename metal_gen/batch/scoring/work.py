"""The kinds of work of `metal-gen score --jsonl` and `metal-gen rank`."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from metal_gen.batch.executor import RowExecutor
from metal_gen.batch.input.reading import ByteSource
from metal_gen.batch.input.rows import RowError
from metal_gen.batch.output.run_file import SEED, Value
from metal_gen.batch.scoring.rows import RankRow, ScoreRow, read_rank_rows, read_score_rows
from metal_gen.scoring.ranking import RankOptions
from metal_gen.scoring.requests import PROMPT_SETTINGS, RequestMaker

if TYPE_CHECKING:
    from metal_gen.generation.loading import PreparedModel, TextModel


@dataclass(frozen=True)
class ScoreRows:
    """Score the text of every row.

    Args:
        stride: Stride of windows; None is half a window.
        per_token: List every token.
        keep_fields: Copy other fields to the record.
    """

    stride: int | None = None
    per_token: bool = False
    keep_fields: bool = False
    scores: bool = True
    command: str = "score"

    def read(self, source: ByteSource) -> Iterator[ScoreRow | RowError | None]:
        """See `RowWork`."""
        return read_score_rows(source, keep_fields=self.keep_fields)

    def open(self, model: "TextModel") -> AbstractContextManager[RowExecutor]:
        """See `RowWork`."""
        from metal_gen.batch.scoring.executor import scoring_rows
        from metal_gen.batch.scoring.jobs import ScoreJob
        from metal_gen.batch.token_texts import TokenTexts

        maker = RequestMaker.of(model.checkpoint, model.settings, model.plan)
        stride = maker.stride(self.stride)
        tokens = TokenTexts(model.checkpoint.tokenizer) if self.per_token else None

        def open_job(row: ScoreRow) -> ScoreJob:
            return ScoreJob(row, maker, stride, tokens)

        return scoring_rows(model, open_job)

    def mark(self, prepared: "PreparedModel") -> dict[str, Value]:
        """See `RowWork`."""
        maker = RequestMaker.of(prepared.checkpoint, prepared.settings, prepared.plan)
        return {
            "command": self.command,
            **_mark(prepared),
            "stride": maker.stride(self.stride),
            "per_token": str(self.per_token),
            "keep_fields": str(self.keep_fields),
        }


@dataclass(frozen=True)
class RankRows:
    """Rank the texts of every row.

    Args:
        options: How.
        keep_fields: Copy other fields to the record.
    """

    options: RankOptions
    keep_fields: bool = False
    scores: bool = True
    command: str = "rank"

    def read(self, source: ByteSource) -> Iterator[RankRow | RowError | None]:
        """See `RowWork`."""
        return read_rank_rows(source, keep_fields=self.keep_fields)

    def open(self, model: "TextModel") -> AbstractContextManager[RowExecutor]:
        """See `RowWork`."""
        from metal_gen.batch.scoring.executor import scoring_rows
        from metal_gen.batch.scoring.jobs import RankingJob

        maker = RequestMaker.of(model.checkpoint, model.settings, model.plan)

        def open_job(row: RankRow) -> RankingJob:
            return RankingJob(row, maker, self.options)

        return scoring_rows(model, open_job)

    def mark(self, prepared: "PreparedModel") -> dict[str, Value]:
        """See `RowWork`."""
        options = self.options
        return {
            "command": self.command,
            **_mark(prepared),
            "by": options.choice_method.value,
            "method": None if options.method is None else options.method.value,
            "instruction": options.instruction,
            "top": options.top,
            "keep_fields": str(self.keep_fields),
        }


def _mark(prepared: "PreparedModel") -> dict[str, Value]:
    """Return what scores depend on: the model, and how prompts are made."""
    from metal_gen.batch.output.fingerprint import fingerprint

    return {**fingerprint(prepared, None, settings=PROMPT_SETTINGS), SEED: 0}
