"""One score, or one ranking: loads the model, computes, and hands the record on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from metal_gen.cli.batch.run import MOST_SLOTS
from metal_gen.cli.input.model_preparation import note_bundled_model, prepare_model, require_mlx_for
from metal_gen.cli.output.output_file import OutputFile, is_stdout
from metal_gen.cli.output.report import report_start
from metal_gen.cli.terminal.console import Console
from metal_gen.cli.terminal.progress import LOADING, ProgressBar
from metal_gen.config.settings import Settings

if TYPE_CHECKING:
    from metal_gen.generation.loading import PreparedModel, TextModel
    from metal_gen.generation.record import Record
    from metal_gen.scoring.ranking import RankOptions
    from metal_gen.scoring.tasks import Choices, Documents

SCORING = "scoring the text"
RANKING = "ranking"


class RecordSink:
    """Where the one record of a run goes.

    Args:
        output: Name of a file; None or `-` is standard output.
        console: Console of the run.

    Raises:
        UsageError: Nothing can be written there.
    """

    def __init__(self, output: str | None, console: Console) -> None:
        self._console = console
        self._file: OutputFile | None = None
        if is_stdout(output):
            console.require_stdout()
        else:
            self._file = OutputFile(Path(str(output)))

    def write(self, record: "Record") -> None:
        """Write the record on a line; errors as of `OutputFile.write`."""
        from metal_gen.generation.record import encode_json

        line = encode_json(record) + "\n"
        if self._file is None:
            self._console.write_text(line)
            self._console.end_text()
        else:
            self._file.write(line)

    def close(self) -> None:
        """Leave the place alone."""
        if self._file is not None:
            self._file.discard()


@dataclass(frozen=True)
class ScoreTask:
    """What is scored.

    Attributes:
        pieces: The text.
        prompt: Prompt before it.
        stride: As for `metal_gen.score`.
        per_token: As for `metal_gen.score`.
    """

    pieces: Iterator[str]
    prompt: str | None
    stride: int | None
    per_token: bool


def run_score(settings: Settings, task: ScoreTask, console: Console) -> "Record":
    """Score a text, and return its record."""
    prepared = _prepared(settings, console, most_slots=1)

    from metal_gen.batch.scoring.records import score_record
    from metal_gen.batch.token_texts import TokenTexts
    from metal_gen.scoring.requests import RequestMaker
    from metal_gen.scoring.score_and_rank import score

    # What cannot be, before the weights are read.
    maker = RequestMaker.of(prepared.checkpoint, prepared.settings, prepared.plan)
    stride = maker.stride(task.stride)
    model = _loaded(prepared, console)
    with ProgressBar(console, SCORING) as bar:
        found = score(
            model,
            task.pieces,
            prompt=task.prompt,
            stride=stride,
            per_token=task.per_token,
            on_progress=lambda tokens: bar.update(tokens, None),
        )
    if found.windows > 1:
        console.note(
            f"scored {found.tokens:,} tokens in {found.windows:,} windows of {maker.capacity:,} tokens, with "
            f"a stride of {stride:,}; a larger --max-seq-len gives tokens more context"
        )
    tokens = TokenTexts(model.checkpoint.tokenizer) if task.per_token else None
    sizes = {"max_seq_len": maker.capacity, "stride": stride if found.windows > 1 else None}
    return {**score_record(found, tokens), **sizes, **_model_record(prepared)}


def slots_for(texts: Sequence[str]) -> int:
    """Return how many of the texts of a ranking are computed at once."""
    return max(1, min(MOST_SLOTS, len(texts)))


def run_rank(
    settings: Settings, task: "Choices | Documents", options: "RankOptions", console: Console
) -> "Record":
    """Rank the texts of one task over slots, and return its record.

    Raises:
        MetalGenError: They cannot be ranked.
    """
    from metal_gen.batch.scoring.records import ranking_record
    from metal_gen.scoring.tasks import Documents

    texts = task.documents if isinstance(task, Documents) else task.choices
    prepared = _prepared(settings, console, most_slots=slots_for(texts), in_slots=True)

    from metal_gen.batch.scoring.executor import open_scorer, score_all
    from metal_gen.scoring.ranking import RankJob
    from metal_gen.scoring.requests import RequestMaker

    job = RankJob(RequestMaker.of(prepared.checkpoint, prepared.settings, prepared.plan), task, options)
    model = _loaded(prepared, console)
    with open_scorer(model) as scorer, ProgressBar(console, RANKING) as bar:
        for done, request in enumerate(score_all(scorer, job.requests()), 1):
            job.take(request)
            bar.update(done, len(texts))
    ranking = job.ranking()
    for notice in ranking.notices:
        console.warn(notice)
    return {**ranking_record(ranking), **_model_record(prepared)}


def _prepared(
    settings: Settings, console: Console, *, most_slots: int, in_slots: bool = False
) -> "PreparedModel":
    require_mlx_for(settings, slots=most_slots)
    prepared = prepare_model(settings, console, most_slots=most_slots, scores=True, in_slots=in_slots)
    prepared.checkpoint.read_tokenizer()
    return prepared


def _loaded(prepared: "PreparedModel", console: Console) -> "TextModel":
    note_bundled_model(prepared.settings, console)
    for notice in prepared.notices:
        console.warn(notice)
    report_start(prepared, console)
    with ProgressBar(console, LOADING):
        return prepared.load()


def _model_record(prepared: "PreparedModel") -> "Record":
    """Say what was computed with."""
    from metal_gen import __version__
    from metal_gen.checkpoint.bundled import BUNDLED_NAME
    from metal_gen.device.backend import mlx_version

    return {
        "model": prepared.settings.model or BUNDLED_NAME,
        "adapters": [adapter.record for adapter in prepared.checkpoint.weights.adapters],
        "quantize": prepared.settings.quantize,
        "dtype": prepared.plan.dtype,
        "versions": {"metal_gen": __version__, "mlx": mlx_version()},
    }
