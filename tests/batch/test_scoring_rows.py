"""Rows that are scored or ranked: what they may be, and that neighbors, windows and failures do not mix."""

import json
import pickle
import tracemalloc

import pytest
from tiny_text_checkpoint import write_text_checkpoint

import metal_gen
from metal_gen.batch.cluster.worker import BlockRunner
from metal_gen.batch.input.rows import RowError, RowErrorCode, RowForm
from metal_gen.batch.output.journal import StreamJournal
from metal_gen.batch.runner import run_rows
from metal_gen.batch.scoring.rows import RankRow, ScoreRow, read_rank_rows, read_score_rows
from metal_gen.batch.scoring.work import RankRows, ScoreRows
from metal_gen.config.settings import Settings
from metal_gen.device.backend import runs_on_cpu
from metal_gen.generation.loading import prepare
from metal_gen.scoring.ranking import Method, RankOptions
from metal_gen.scoring.tasks import Choices, Documents

LENGTH = 128
TALK = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


class Parts:
    """A source of bytes."""

    def __init__(self, *parts):
        self.parts = [*parts]

    def read(self):
        return self.parts.pop(0) if self.parts else b""


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def one(read, row, *, keep_fields=False):
    data = row if isinstance(row, bytes) else lines([row])
    (found,) = read(Parts(data), keep_fields=keep_fields)
    return found


@pytest.mark.parametrize(
    ("row", "text", "prompt"),
    [
        ({"id": 1, "text": "a"}, "a", None),
        ({"text": "a", "prompt": "b"}, "a", "b"),
        ({"text": "a", "prompt": None, "messages": None}, "a", None),
        ({"messages": TALK}, "b", TALK[:1]),
    ],
)
def test_rows_to_score(row, text, prompt):
    found = one(read_score_rows, row)
    assert isinstance(found, ScoreRow), found.reason
    assert (found.text, found.prompt, found.id) == (text, prompt, 1)


@pytest.mark.parametrize(
    ("row", "task"),
    [
        ({"prompt": "a", "choices": ["b", "b"]}, Choices("a", ["b", "b"])),
        ({"messages": TALK[:1], "choices": ["b"]}, Choices(TALK[:1], ["b"])),
        ({"query": "a", "documents": ["b"]}, Documents("a", ["b"])),
    ],
)
def test_rows_to_rank(row, task):
    found = one(read_rank_rows, row)
    assert isinstance(found, RankRow), found.reason
    assert found.task == task


@pytest.mark.parametrize(
    ("read", "row", "part"),
    [
        (read_score_rows, {}, "neither a text nor messages"),
        (read_score_rows, {"text": ""}, "text is empty"),
        (read_score_rows, {"text": 1}, "text must be a text"),
        (read_score_rows, b'{"text": "a\\ud800"}\n', "unpaired surrogate"),
        (read_score_rows, b'{"text": "\xff"}\n', "not UTF-8: byte 10 is 0xff"),
        (read_score_rows, b'["a"]\n', "must be a JSON object"),
        (read_score_rows, {"text": "a", "prompt": ""}, "prompt is empty"),
        (read_score_rows, {"text": "a", "messages": TALK}, "messages stand alone"),
        (read_score_rows, {"messages": TALK[:1]}, "the last message must be the assistant's, not the user's"),
        (read_score_rows, {"messages": TALK[1:]}, "no message before the answer"),
        (read_score_rows, {"messages": [TALK[0], {**TALK[1], "reasoning": "hm"}]}, "has reasoning"),
        (read_score_rows, {"text": "a", "label": 1}, 'a row has no field "label"'),
        (read_score_rows, {"id": [], "text": "a"}, "id must be"),
        (read_rank_rows, {"prompt": "a"}, "there are no choices"),
        (read_rank_rows, {"choices": ["a"]}, "neither a prompt nor messages"),
        (read_rank_rows, {"messages": TALK, "choices": ["a"]}, "the last message is the assistant's"),
        (read_rank_rows, {"query": "a"}, "there are no documents"),
        (read_rank_rows, {"documents": ["a"]}, "documents and no query"),
        (read_rank_rows, {"query": "a", "documents": []}, "documents is empty"),
        (read_rank_rows, {"query": "a", "documents": "b"}, "documents must be a list"),
        (read_rank_rows, {"query": "a", "documents": ["b", ""]}, "document 2 is empty"),
        (read_rank_rows, {"query": "a", "documents": ["b", 2]}, "document 2 must be a text"),
        (read_rank_rows, {"query": "a", "documents": ["b"], "choices": ["c"]}, "not both"),
    ],
    ids=lambda value: value.__name__ if callable(value) else str(value),
)
def test_rows_that_cannot_be_read_say_why(read, row, part):
    found = one(read, row)
    assert isinstance(found, RowError)
    assert part in found.reason
    assert found.code is RowErrorCode.INVALID_REQUEST


def test_other_fields_are_copied_when_asked_and_never_take_the_place_of_results():
    row = {"id": "a", "text": "hi", "label": 1, "logprob": 2, "ranking": 3}
    found = one(read_score_rows, row, keep_fields=True)
    assert found.carried == {"label": 1, "input_logprob": 2, "input_ranking": 3}


def test_a_line_of_another_form_has_a_record_of_the_only_one():
    for line in (b'{"custom_id": "a", \n', b'{"custom_id": "a", "x": "' + b"y" * 2**22 + b'"}\n'):
        assert one(read_score_rows, line).form is RowForm.NATIVE
    assert one(read_score_rows, b'{"id": "a", "text": \n').id == "a"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_text_checkpoint(tmp_path_factory.mktemp("model"), max_position_embeddings=256)


def settings(folder, **others):
    return Settings(model=str(folder), max_seq_len=LENGTH, **others)


class Stream:
    """Takes records."""

    def __init__(self):
        self.records = []

    def write(self, line):
        self.records.append(json.loads(line))

    def flush(self):
        pass


def run(folder, work, rows, slots=3, **options):
    """The records of rows, by their ids."""
    model = prepare(settings(folder, batch_size=slots), scores=True).load()
    stream = Stream()
    with work.open(model) as executor, StreamJournal(stream, 0) as journal:
        counts = run_rows(
            work.read(Parts(lines(rows))),
            executor,
            journal,
            seed=0,
            on_idle=lambda: None,
            on_step=lambda counts: None,
            on_notice=lambda notice: None,
            on_failure=lambda row: None,
            **options,
        )
    assert counts.done + counts.failed == len(stream.records)
    return {record["id"]: record for record in stream.records}


ROWS = [
    {"id": "long", "text": "A fox went out. " * 30},
    {"id": "one token", "text": "a"},
    {"id": "short", "text": "An owl."},
    {"id": "answer", "prompt": "Who?", "text": "the owl"},
    {"id": "too long", "prompt": "Who?", "text": "the owl " * 30},
    {"id": "talk", "messages": TALK},
    {"id": "empty", "text": ""},
    {"id": "another", "text": "Nobody saw it go, and so it went."},
]


def test_records_are_those_of_the_library_whatever_the_slots(folder):
    model = metal_gen.load(folder, max_seq_len=LENGTH)
    found = run(folder, ScoreRows(stride=50, per_token=True), ROWS)
    for row in ROWS:
        record = found[row["id"]]
        if "error" in record:
            continue
        text, prompt = (row["text"], row.get("prompt")) if "text" in row else ("b", TALK[:1])
        score = metal_gen.score(model, text, prompt=prompt, stride=50, per_token=True)
        assert record["logprob"] == pytest.approx(score.logprob, abs=1e-3)
        assert [record[name] for name in ("tokens", "bytes", "windows", "prompt_tokens")] == [
            *(score.tokens, score.nbytes, score.windows, score.prompt_tokens)
        ]
        assert [each["token_id"] for each in record["token_logprobs"]] == list(score.token_ids)
    errors = {id: record["error"]["code"] for id, record in found.items() if "error" in record}
    assert errors == {
        "one token": "invalid_request",
        "too long": "does_not_fit",
        "empty": "invalid_request",
    }
    assert found["long"]["windows"] > 3
    if runs_on_cpu():
        assert run(folder, ScoreRows(stride=50, per_token=True), ROWS, slots=1) == found


def test_records_in_the_order_of_rows(folder):
    assert list(run(folder, ScoreRows(), ROWS, ordered=True)) == [row["id"] for row in ROWS]


def test_rankings_are_those_of_the_library(folder):
    model = metal_gen.load(folder, max_seq_len=LENGTH)
    choices, documents = ["fox", "owl", "x", "fox", "nobody at all"], ["a fox", "an owl", "a fox"]
    rows = [
        {"id": 1, "prompt": "Who?", "choices": choices},
        {"id": 2, "query": "who", "documents": documents},
        {"id": 3, "query": "who", "documents": ["fits", "does not fit " * 20]},
        {"id": 4, "prompt": "Who?", "choices": ["the same"]},
    ]
    options = RankOptions(by=Method.MEAN, top=4)
    found = run(folder, RankRows(options), rows)
    expected = metal_gen.rank(model, prompt="Who?", choices=choices, by="mean", top=4)
    for record, item in zip(found[1]["ranking"], expected.items, strict=True):
        assert (record["index"], record["choice"]) == (item.index, item.text)
        assert record["score"] == pytest.approx(item.score, abs=1e-4)
    expected = metal_gen.rank(model, query="who", documents=documents)
    assert [each["index"] for each in found[2]["ranking"]] == [item.index for item in expected.items]
    assert found[2]["method"] == "likelihood"
    assert found[3]["error"]["code"] == "does_not_fit"
    assert len(found[4]["ranking"]) == 1


def test_memory_does_not_depend_on_the_number_of_rows(folder):
    model = prepare(settings(folder, batch_size=4), scores=True).load()

    class Endless:
        """Many rows, made when they are read."""

        def __init__(self, count):
            self.left = count

        def read(self):
            self.left -= 1
            return lines([{"text": "ab"}] * 20) if self.left >= 0 else b""

    class Nowhere(Stream):
        """Keeps nothing."""

        def write(self, line):
            pass

    work = ScoreRows()

    def peak(count):
        tracemalloc.start()
        with work.open(model) as executor, StreamJournal(Nowhere(), 0) as journal:
            nothing = {
                name: lambda *given: None for name in ("on_idle", "on_step", "on_notice", "on_failure")
            }
            run_rows(work.read(Endless(count)), executor, journal, seed=0, **nothing)
        _, highest = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return highest

    peak(1)
    assert peak(30) < peak(3) + 100_000


@pytest.mark.parametrize(
    ("work", "row"),
    [
        (ScoreRows(stride=50), {"id": 1, "text": "An owl."}),
        (RankRows(RankOptions()), {"id": 1, "prompt": "Who?", "choices": ["fox", "owl"]}),
    ],
    ids=["score", "rank"],
)
def test_a_node_of_a_cluster_gives_the_same_record(folder, work, row):
    """The work and the rows are sent to another process."""
    here = run(folder, work, [row], slots=2)[1]
    sent, rows = pickle.loads(pickle.dumps((work, list(work.read(Parts(lines([row])))))))
    with sent.open(prepare(settings(folder, batch_size=2), scores=True).load()) as executor:
        report = BlockRunner(executor).work([(each, 0) for each in rows])
    [(number, outcome)] = pickle.loads(pickle.dumps(report)).outcomes
    assert (number, outcome.record) == (1, here)


def test_what_a_run_depends_on_tells_runs_apart(folder):
    prepared = prepare(settings(folder), scores=True)
    marks = [
        work.mark(prepared)
        for work in (
            *(ScoreRows(), ScoreRows(stride=7), ScoreRows(per_token=True), ScoreRows(keep_fields=True)),
            *(RankRows(RankOptions()), RankRows(RankOptions(top=2)), RankRows(RankOptions(by=Method.MEAN))),
            *(RankRows(RankOptions(instruction="a")), RankRows(RankOptions(method=Method.LIKELIHOOD))),
        )
    ]
    assert len({json.dumps(mark) for mark in marks}) == len(marks)
    assert ScoreRows(stride=LENGTH // 2).mark(prepared) == ScoreRows().mark(prepared)
    assert "temperature" not in marks[0]
