"""Tests constraints on the command line: what is written, exit codes, rows of a batch, and what resumes."""

import json

import pytest
from tiny_text_checkpoint import CHATML, END_THINK, THINK, remove_bytes, write_text_checkpoint

from metal_gen.cli.output.json_indent import JsonIndenter

pytest_plugins = ("fixtures_cli", "fixtures_text")

PERSON = json.dumps(
    {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}, "n": {"enum": [1, [], {}]}},
        "required": ["ok", "n"],
        "additionalProperties": False,
    }
)
HI = ("generate", "-p", "hi", "--no-thinking", "--seed", "1")


def records(folder, name="out.jsonl"):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def test_a_whole_document_and_nothing_else_is_on_stdout(run_here):
    outcome = run_here(*HI, "--schema", PERSON)
    assert outcome.code == 0
    assert set(json.loads(outcome.stdout)) == {"ok", "n"}
    assert outcome.stdout == json.dumps(json.loads(outcome.stdout), separators=(",", ":")).encode() + b"\n"
    indented = run_here(*HI, "--schema", PERSON, "--schema-indent", "2").stdout.decode()
    assert indented == json.dumps(json.loads(outcome.stdout), indent=2) + "\n"


@pytest.mark.parametrize("constraint", [(), ("--choice", "yes, I am"), ("--regex", "[a-z]+, [a-z]+")])
def test_only_a_document_of_a_schema_is_indented(run_here, constraint, monkeypatch):
    """A setting does nothing without a schema; an option that does nothing is refused."""
    plain = run_here(*HI, "-n", "12", *constraint)
    assert plain.stdout
    refused = run_here(*HI, "-n", "12", *constraint, "--schema-indent", "2")
    assert (refused.code, refused.stdout) == (2, b"")
    monkeypatch.setenv("METAL_GEN_SCHEMA_INDENT", "2")
    assert run_here(*HI, "-n", "12", *constraint).stdout == plain.stdout


def test_json_says_whether_the_text_is_complete(run_here):
    whole = json.loads(run_here(*HI, "--choice", "yes", "--choice", "no", "--json").stdout)
    assert (whole["complete"], whole["finish_reason"], whole["finish_detail"]) == (True, "stop", "grammar")
    assert whole["text"] in ("yes", "no")
    outcome = run_here(*HI, "--regex", "[0-9]{50}", "--json", "-n", "3")
    assert outcome.code == 9
    assert json.loads(outcome.stdout)["complete"] is False
    assert "complete" not in json.loads(run_here(*HI, "--json", "-n", "3").stdout)


@pytest.mark.quick
def test_half_a_document_replaces_no_file(run_here, tmp_path):
    (tmp_path / "out.json").write_text("before")
    outcome = run_here(*HI, "--regex", "[0-9]{50}", "-n", "3", "-o", "out.json")
    assert outcome.code == 9
    assert "the text is not complete: it ended after 3 tokens: length (max_tokens)" in outcome.stderr
    assert (tmp_path / "out.json").read_text() == "before"
    assert (tmp_path / "out.json.part").read_text().strip().isdecimal()


def test_a_full_cache_that_cuts_a_document_is_said_once(run_here):
    outcome = run_here(*HI, "--regex", "[0-9]{400}", "--max-seq-len", "64")
    assert outcome.code == 9
    assert "length (cache_full)\nhint: raise --max-seq-len, or bound what" in outcome.stderr
    assert (outcome.stderr.count("hint:"), outcome.stderr.count("the cache is full")) == (1, 0)


@pytest.mark.quick
@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (("--schema", '{"not": {}}'), 2, "--schema: the schema has the keyword not"),
        (("--schema", "none.json"), 2, "--schema cannot be read: No such file"),
        (("--schema", "{"), 2, "--schema is not JSON"),
        (("--regex", "(?=a)"), 2, "--regex: the regex cannot be used: look-around"),
        (("--choice", ""), 2, "--choice must not be empty"),
        (("--grammar", "none.lark"), 2, "--grammar cannot be read"),
        (("--regex", "a", "--choice", "b"), 2, "--regex and --choice are both set"),
        (("--regex", "a", "--prefill", "b"), 2, "prefill contradicts regex"),
        (("--grammar", "empty.lark"), 2, "--grammar is empty: 'empty.lark'"),
        (("--regex", "()"), 2, "--regex: only the empty text fits the regex"),
        (("--choice", "é", "-m", "model"), 2, "--choice: the choice needs the byte 0xc3 of 'é'"),
        (("--config", "c.toml"), 3, "[generation] schema: the schema has the keyword not"),
    ],
    ids=range(12),
)
def test_what_cannot_be_used(run_here, tmp_path, arguments, code, part):
    (tmp_path / "empty.lark").touch()
    if "model" in arguments:
        remove_bytes(write_text_checkpoint(tmp_path / "model"), "é".encode())
    (tmp_path / "c.toml").write_text("[generation]\nschema = { not = {} }\n")
    outcome = run_here(*HI, *arguments)
    assert (outcome.code, outcome.stdout) == (code, b"")
    assert part in outcome.stderr


@pytest.mark.quick
@pytest.mark.parametrize(
    ("choices", "is_noted"),
    [(("yes,no",), True), (("Yes, sure.", "No."), False), (("yes",), False)],
)
def test_one_choice_with_a_comma_is_noted(run_here, choices, is_noted):
    outcome = run_here(*HI, *(word for choice in choices for word in ("--choice", choice)))
    assert outcome.code == 0
    assert ("for several, repeat --choice" in outcome.stderr) == is_noted


@pytest.mark.quick
def test_the_plan_counts_what_a_constraint_takes(run_here):
    plain = json.loads(run_here("plan", "--json").stdout)
    constrained = json.loads(run_here("plan", "--json", "--schema", "name").stdout)
    assert constrained["total_bytes"] >= plain["total_bytes"]
    assert constrained["constraint_bytes"] > plain["constraint_bytes"] == 0
    assert "constraint" in run_here("plan", "--schema", "name").stdout.decode()


ROWS = [
    {"id": "free", "prompt": "A fox."},
    {"id": "schema", "prompt": "A fox.", "schema": json.loads(PERSON)},
    {"id": "choice", "prompt": "A fox.", "choice": ["yes", "no"], "samples": 3},
    {"id": "regex", "prompt": "A fox.", "regex": "[a-f]{3,9}-[0-9]", "logprobs": 1},
    {"id": "grammar", "prompt": "A fox.", "grammar": 'start: "x" y+\ny: "y" /[0-9]/'},
    {"id": "cut", "prompt": "A fox.", "regex": "[0-9]{60}"},
    {"id": "no", "prompt": "A fox.", "schema": {"not": {}}},
    {"id": "two", "prompt": "A fox.", "regex": "a", "choice": ["b"]},
    {"id": "own", "prompt": "A fox.", "thinking_budget": 5, "break_loops": False},
]


def batch(run_here, tmp_path, *arguments, output=("-o", "out.jsonl", "--ordered"), rows=ROWS):
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({**row, "thinking": False}) + "\n" for row in rows))
    settings = ("--seed", "3", "-n", "40", "--temperature", "1.2")
    return run_here("batch", "in.jsonl", *output, *settings, *arguments)


def test_rows_have_constraints_of_their_own(run_here, tmp_path):
    outcome = batch(run_here, tmp_path, "--batch-size", "3")
    assert outcome.code == 7
    made = {record["id"]: record for record in records(tmp_path)}
    assert "complete" not in made["free"]
    assert set(json.loads(made["schema"]["text"])) == {"ok", "n"}
    assert made["schema"]["complete"] is True
    assert {text["text"] for text in made["choice"]["texts"]} <= {"yes", "no"}
    assert len(made["regex"]["logprobs"]) == made["regex"]["completion_tokens"]
    assert made["grammar"]["text"].startswith("xy")
    assert made["cut"]["error"]["code"] == "incomplete"
    assert made["cut"]["text"].isdecimal()
    assert made["cut"]["complete"] is False
    assert "keyword not" in made["no"]["error"]["message"]
    assert "both set" in made["two"]["error"]["message"]
    # None of it depends on how many rows run at once, nor on where a run is broken off.
    first = (tmp_path / "out.jsonl").read_bytes()
    (tmp_path / "out.jsonl").write_bytes(b"".join(first.splitlines(keepends=True)[:3]))
    assert batch(run_here, tmp_path, "--batch-size", "3", "--resume").code == 7
    assert (tmp_path / "out.jsonl").read_bytes() == first
    for file in tmp_path.glob("out.jsonl*"):
        file.unlink()
    batch(run_here, tmp_path, "--batch-size", "1")
    assert (tmp_path / "out.jsonl").read_bytes() == first


@pytest.mark.quick
def test_a_check_of_rows_finds_schemas_that_cannot_be_kept_to(run_here, tmp_path):
    outcome = batch(run_here, tmp_path, "--check", output=())
    assert "the schema has the keyword not" in outcome.stderr
    assert not (tmp_path / "out.jsonl").exists()


def test_a_batch_breaks_loops_unless_told_not_to(run_here, tmp_path, babbler):
    rows = [{"id": 1, "prompt": "hi"}, {"id": 2, "prompt": "hi", "break_loops": False}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run_here("batch", "in.jsonl", "-o", "out.jsonl", "-m", babbler, "--ordered", "-n", "200")
    first, second = records(tmp_path)
    assert (first["completion_tokens"], first["finish_reason"]) == (64, "stop")
    assert second["completion_tokens"] == 200


def test_rows_begin_to_think_as_texts_alone_do(run_here, tmp_path):
    switch = CHATML + "{% if enable_thinking %}{% endif %}"
    folder = write_text_checkpoint(tmp_path / "m", says=[THINK, *b"Hm", END_THINK], chat_template=switch)
    (tmp_path / "in.jsonl").write_text('{"prompt": "hi", "samples": 9, "seed": 4, "choice": ["yes", "no"]}\n')
    settings = ("-m", folder, "--temperature", "30", "--max-seq-len", "200", "-n", "90")
    run_here("batch", "in.jsonl", "-o", "out.jsonl", "--batch-size", "4", *settings)
    rows = [(each["text"], each.get("reasoning")) for each in records(tmp_path)[0]["texts"]]
    choices = ("--choice", "yes", "--choice", "no", "--samples", "9", "--seed", "4", "--json")
    outcome = run_here("generate", "-p", "hi", "--break-loops", *choices, *settings)
    alone = json.loads(outcome.stdout)["texts"]
    assert rows == [(each["text"], each.get("reasoning")) for each in alone]
    assert len({bool(thinking) for _, thinking in rows}) == 2


def test_a_batch_says_how_the_thinking_went(run_here, tmp_path):
    says = [*b"abcdefgh", END_THINK, *b"42"]
    folder = write_text_checkpoint(tmp_path / "m", says=says, chat_template=CHATML + "<think>\n")
    (tmp_path / "in.jsonl").write_text(
        '{"prompt": "hi", "thinking_budget": 3}\n{"prompt": "hi"}\n{"prompt": "hi", "regex": "[0-9]{2}"}\n'
    )
    run_here("batch", "in.jsonl", "-o", "out.jsonl", "-m", folder, "--ordered", "--max-seq-len", "300")
    cut, free, constrained = records(tmp_path)
    assert cut["thinking"]["cut"] == "budget"
    assert cut["reasoning"].startswith("abc\n\nConsidering")
    assert free["thinking"] == {"tokens": 8, "cut": None}
    assert (free["text"], constrained["reasoning"], constrained["complete"]) == ("42", "abcdefgh", True)
    assert constrained["text"].isdecimal()


@pytest.mark.quick
@pytest.mark.parametrize("spaces", [0, 2, 4])
@pytest.mark.parametrize(
    "document",
    [{}, [], 5, 'a"b\\', {"a": {}, "b": [], "c": [1, [2, {"d": None}]], "e{": "}],:"}, [[[]], [{}]]],
    ids=range(6),
)
def test_json_is_indented_as_python_does_it_wherever_it_is_cut(document, spaces):
    compact = json.dumps(document, separators=(",", ":"))
    expected = json.dumps(document, indent=spaces)
    for step in (1, 2, len(compact)):
        indenter = JsonIndenter(spaces)
        parts = [compact[place : place + step] for place in range(0, len(compact), step)]
        assert "".join(map(indenter.feed, parts)) == expected
