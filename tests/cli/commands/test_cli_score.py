"""`metal-gen score` and `metal-gen rank`: JSON as documented, rows that are resumed, and refusals."""

import json
import math
from pathlib import Path

import jsonschema
import pytest
from cli_process import ROOT, run_cli
from tiny_text_checkpoint import write_text_checkpoint

import metal_gen
from metal_gen.cli.scoring import text_source

pytest_plugins = ("fixtures_cli",)

SCHEMA = json.loads((ROOT / "metal_gen" / "schemas" / "output.json").read_text())
LENGTH = 128
TEXT = "A fox went out in the rain.\n"
ROWS = [
    {"id": 1, "text": TEXT},
    {"id": 2, "prompt": "Who?", "text": "the fox"},
    {"id": 3, "text": "a"},
    {"id": 4, "text": TEXT * 20},
]


def check(kind, document):
    """Fail where a document is not as its definition says."""
    jsonschema.Draft202012Validator({**SCHEMA, "anyOf": [{"$ref": f"#/$defs/{kind}"}]}).validate(document)
    return document


def records(kind, text):
    return [check(kind, json.loads(line)) for line in text.splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(write_text_checkpoint(tmp_path_factory.mktemp("model"), max_position_embeddings=256))


@pytest.fixture
def run(run_here, folder):
    """Run a command with the model, in a folder with a text and rows."""
    Path("text.txt").write_text(TEXT)
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))

    def run(command, *arguments):
        return run_here(command, *arguments, "--model", folder, "--max-seq-len", LENGTH)

    return run


def test_a_file_gives_one_object(run, folder):
    outcome = run("score", "text.txt")
    assert (outcome.code, outcome.stderr) == (0, "")
    [record] = records("score", outcome.stdout.decode())
    expected = metal_gen.score(metal_gen.load(folder, max_seq_len=LENGTH), TEXT)
    assert record["logprob"] == pytest.approx(expected.logprob, abs=1e-4)
    assert record["perplexity"] == pytest.approx(math.exp(-record["logprob_per_token"]))
    assert (record["tokens"], record["bytes"], record["windows"]) == (len(TEXT) - 1, len(TEXT) - 1, 1)
    assert (record["model"], record["max_seq_len"], record["stride"]) == (folder, LENGTH, None)
    assert "token_logprobs" not in record


def test_each_token_a_prompt_and_a_file_for_the_record(run):
    outcome = run("score", "text.txt", "--per-token", "--prompt", "What?", "-o", "score.json")
    assert (outcome.code, outcome.stdout) == (0, b"")
    [record] = records("score", Path("score.json").read_text())
    assert "".join(each["token"] for each in record["token_logprobs"]) == TEXT
    assert sum(each["logprob"] for each in record["token_logprobs"]) == pytest.approx(record["logprob"])
    assert record["prompt_tokens"] > len("What?")


def test_a_text_that_is_longer_than_the_cache_is_scored_in_windows(run):
    Path("text.txt").write_text(TEXT * 60)
    outcome = run("score", "text.txt", "--stride", "100")
    [record] = records("score", outcome.stdout.decode())
    assert record["tokens"] == len(TEXT) * 60 - 1
    assert record["windows"] == 1 + math.ceil((len(TEXT) * 60 - LENGTH) / 100)
    assert (record["max_seq_len"], record["stride"]) == (LENGTH, 100)
    assert "windows of 128 tokens, with a stride of 100" in outcome.stderr


def test_bytes_may_be_cut_anywhere(run, monkeypatch):
    text = "caf\u00e9 \U0001f319\n" * 20
    Path("text.txt").write_bytes(b"\xef\xbb\xbf" + text.encode())
    whole = run("score", "text.txt")
    monkeypatch.setattr(text_source, "PIECE_BYTES", 5)
    assert run("score", "text.txt").stdout == whole.stdout
    assert json.loads(whole.stdout)["bytes"] == len(text.encode()) - 1


def test_piped_text(folder, tmp_path):
    outcome = run_cli("score", "-m", folder, "-q", home=tmp_path, stdin=TEXT.encode())
    assert check("score", json.loads(outcome.stdout))["bytes"] == len(TEXT) - 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the text is empty"),
        (b"a", "the text is a single token, and nothing comes before it that could predict it"),
        (b"abc\xff", "text.txt is not UTF-8: byte 3 is 0xff"),
        (b"a" * 98 + b"\xc3", "text.txt is not UTF-8: byte 98 is 0xc3"),
        (b"\x1f\x8b\x08\0", "text.txt is compressed with gzip, not text"),
        (b"BZh91AY&SY" + b"a" * 20 + b"\xff", "text.txt is compressed with bzip2, not text"),
    ],
)
def test_texts_that_cannot_be_scored(run, monkeypatch, content, message):
    monkeypatch.setattr(text_source, "PIECE_BYTES", 10)
    Path("text.txt").write_bytes(content)
    outcome = run("score", "text.txt")
    assert (outcome.code, outcome.stdout) == (2, b"")
    assert outcome.stderr.splitlines()[0] == f"metal-gen: {message}"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("score", "nothing.txt"), 2, "the text nothing.txt cannot be read: No such file or directory"),
        (("score", "."), 2, "the text . cannot be read: Is a directory"),
        (("score",), 2, "there is no text"),
        (("score", "text.txt", "--stride", "128"), 2, "the stride must be from 1 to 127"),
        (("score", "text.txt", "--resume"), 2, "--resume needs --jsonl"),
        (("score", "text.txt", "-o", "text.txt"), 2, "the output text.txt is the text"),
        (("score", "rows.jsonl", "--jsonl", "--prompt", "a"), 2, "--prompt contradicts --jsonl"),
        (("score", "rows.jsonl", "--jsonl", "--resume"), 2, "--resume contradicts -o -"),
        (("score", "rows.jsonl", "--jsonl", "-o", "rows.jsonl"), 2, "the output rows.jsonl is the input"),
        (("score", "text.txt", "--jsonl"), 2, "text.txt is plain text, not JSON Lines"),
        (("score", "rows.jsonl", "--jsonl", "--stride", "128"), 2, "the stride must be from 1 to 127"),
        (("score", "text.txt", "--prompt", "a" * 300), 6, "prompt and text have 346 tokens together"),
        (("rank",), 2, "there must be a prompt and choices, or a query and documents"),
        (("rank", "--prompt", "a"), 2, "there are no choices for the prompt"),
        (("rank", "--document", "a"), 2, "there is no query for the documents"),
        (("rank", "--query", "a", "--choice", "b"), 2, "choices and query cannot be given together"),
        (("rank", "--query", "a", "--documents-file", "empty.txt"), 2, "there are no documents"),
        (("rank", "--query", "a", "--document", ""), 2, "document 1 is empty"),
        (("rank", "--prompt", "a", "--choice", "b", "--choice", ""), 2, "choice 2 is empty"),
        (("rank", "--prompt", "a", "--choice", "b", "--by", "luck"), 2, "there is no method 'luck'"),
        (("rank", "--query", "a", "--document", "b", "--method", "reranker"), 2, "this model is no reranker"),
        (("rank", "--query", "a", "--document", "b" * 200), 6, "prompt and query have 275 tokens together"),
        (("rank", "rows.jsonl"), 2, "a file of rows needs --jsonl: rows.jsonl"),
        (("rank", "--prompt", "a", "--choice", "b", "--instruction", "c"), 2, "has no effect on choices"),
        (("rank", "--prompt", "a", "--choice", "b", "--method", "likelihood"), 2, "leave method out"),
        (("rank", "rows.jsonl", "--jsonl", "--json"), 2, "--json contradicts --jsonl"),
        (("score", "rows.jsonl", "--jsonl", "--json"), 2, "--json contradicts --jsonl"),
        (("rank", "a fox", "--choice", "b", "--choice", "c"), 2, "hint: as in `metal-gen rank --prompt"),
        (("rank", "a fox", "ran", "slept"), 2, "hint: as in `metal-gen rank --prompt"),
        (("score", "A fox ran."), 2, "`echo '...' | metal-gen score` scores the words"),
        (("rank", "rows.jsonl", "--jsonl", "--query", "a"), 2, "--query contradicts --jsonl"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, tuple) else "",
)
def test_what_is_refused(run, arguments, code, message):
    Path("empty.txt").touch()
    outcome = run(*arguments)
    assert (outcome.code, outcome.stdout) == (code, b"")
    assert message in outcome.stderr


def test_rows_give_records_and_a_run_goes_on_where_it_was(run):
    outcome = run("score", "rows.jsonl", "--jsonl", "-o", "out.jsonl", "--ordered", "--summary", "sum.json")
    assert outcome.code == 7, outcome.stderr
    found = records("score_record", Path("out.jsonl").read_text())
    assert [record["id"] for record in found] == [1, 2, 3, 4]
    assert "seed" not in outcome.stderr
    assert "line 3: the text is a single token" in outcome.stderr
    assert check("summary", json.loads(Path("sum.json").read_text()))["failed"] == 1
    whole = Path("out.jsonl").read_bytes()
    # As a kill leaves it.
    Path("out.jsonl").write_bytes(whole[: len(whole) - 200])
    resumed = ("score", "rows.jsonl", "--jsonl", "-o", "out.jsonl", "--ordered", "--resume")
    assert run(*resumed).code == 7
    assert Path("out.jsonl").read_bytes() == whole
    other = run(*resumed, "--stride", "5")
    assert other.code == 2
    assert "was started with stride 64, but this run has stride 5" in other.stderr
    assert run("rank", *resumed[1:]).code == 2


def test_rows_go_to_stdout_unless_a_file_is_named(run):
    outcome = run("score", "rows.jsonl", "--jsonl", "-q", "--batch-size", "2")
    assert outcome.code == 7
    assert {record["id"] for record in records("score_record", outcome.stdout.decode())} == {1, 2, 3, 4}
    assert run("score", "rows.jsonl", "--jsonl", "-o", "/dev/stdout", "-q").code == 7


def test_choices_and_documents_are_ranked(run, folder):
    model = metal_gen.load(folder, max_seq_len=LENGTH)
    choices = ["fox", "owl", "fox"]
    flags = [flag for choice in choices for flag in ("--choice", choice)]
    outcome = run("rank", "--prompt", "Who?", *flags)
    assert (outcome.code, outcome.stderr) == (0, "")
    [record] = records("ranking", outcome.stdout.decode())
    expected = metal_gen.rank(model, prompt="Who?", choices=choices)
    assert [each["index"] for each in record["ranking"]] == [item.index for item in expected.items]
    assert record["method"] == "sum"
    Path("documents.txt").write_text("a fox\n\nan owl\n")
    arguments = ("--query", "who", "--document", "nobody", "--documents-file", "documents.txt", "--top", "2")
    [record] = records("ranking", run("rank", *arguments).stdout.decode())
    assert (record["method"], len(record["ranking"])) == ("likelihood", 2)
    assert {each["index"] for each in record["ranking"]} < {0, 1, 2}


def test_rows_are_ranked(run):
    rows = [{"id": "a", "query": "who", "documents": ["x", "y"], "label": 1}, {"id": "b", "prompt": "Who?"}]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    outcome = run("rank", "rows.jsonl", "--jsonl", "--keep-fields", "--ordered")
    assert outcome.code == 7
    ranked, failed = records("ranking_record", outcome.stdout.decode())
    assert (ranked["label"], len(ranked["ranking"])) == (1, 2)
    assert failed["error"]["message"] == "there are no choices"


def test_an_instruction_is_for_rows_of_documents(run):
    rows = [{"id": 1, "query": "who", "documents": ["x"]}, {"id": 2, "prompt": "Who?", "choices": ["x"]}]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    plain, asked = (
        records("ranking_record", run("rank", "rows.jsonl", "--jsonl", *given, "--ordered").stdout.decode())
        for given in ((), ("--instruction", "Find it."))
    )
    assert asked[0]["ranking"][0]["score"] != plain[0]["ranking"][0]["score"]
    assert asked[1]["ranking"] == plain[1]["ranking"]


def test_another_format_is_named_with_the_pipe_that_reads_it(run):
    Path("text.gz").write_bytes(b"\x1f\x8b\x08\0")
    for arguments, reader in (
        (("score", "text.gz"), "score ..."),
        (("rank", "--query", "a", "--documents-file", "text.gz"), "rank --documents-file - ..."),
        (("generate", "--prompt-file", "text.gz"), "generate ..."),
    ):
        outcome = run(*arguments)
        assert (outcome.code, outcome.stdout) == (2, b"")
        assert "text.gz is compressed with gzip, not text\n" in outcome.stderr
        assert outcome.stderr.endswith(
            f"hint: read it through a pipe: gzip -dc < text.gz | metal-gen {reader}\n"
        )


def test_json_asks_for_what_is_the_default(run):
    for given in (("score", "text.txt"), ("rank", "--prompt", "a", "--choice", "b")):
        assert run(*given, "--json").stdout == run(*given).stdout


def test_quantization_has_a_price(run, run_here):
    """The recipe of the manual."""
    found = {}
    for bits in (None, "8", "4"):
        quantize = () if bits is None else ("--quantize", bits)
        outcome = run_here("score", "text.txt", "-q", *quantize)
        [record] = records("score", outcome.stdout.decode())
        assert record["quantize"] == bits
        found[bits] = record["perplexity"]
    assert len(set(found.values())) == 3
    assert abs(math.log(found["8"] / found[None])) < abs(math.log(found["4"] / found[None]))


def test_documents_of_a_file_have_a_limit(run, monkeypatch):
    monkeypatch.setattr("metal_gen.cli.commands.rank.MOST_CHARACTERS", 40)
    Path("documents.txt").write_text("a fox\n" * 10)
    outcome = run("rank", "--query", "who", "--documents-file", "documents.txt")
    assert outcome.code == 2
    assert "have more than 40 characters" in outcome.stderr
