"""Tests `--json`, `--jsonl` and other JSON outputs against the schema that documents them."""

import json
import re
import signal
from pathlib import Path

import jsonschema
import pytest
from cli_process import ROOT, run_in_terminal, start_cli
from tiny_text_checkpoint import SAID, SAID_LINE

import metal_gen
from metal_gen.generation.record import encode_json

pytest_plugins = ("fixtures_text", "fixtures_cli")

SCHEMA = json.loads((ROOT / "metal_gen" / "schemas" / "output.json").read_text())
ENDLESS = ("--max-seq-len", "20000")


def check(kind, document):
    """Check a document against its definition."""
    jsonschema.Draft202012Validator({**SCHEMA, "anyOf": [{"$ref": f"#/$defs/{kind}"}]}).validate(document)
    return document


def lines_of(text):
    """Return the documents of JSON lines, each ended by a newline."""
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def say(run_here):
    """Return the JSON object of a model's text."""

    def say(model, *arguments):
        outcome = run_here("generate", "-m", model, "-p", "hi", "--json", *arguments)
        assert outcome.code == 0, outcome.stderr
        [document] = lines_of(outcome.stdout.decode())
        return check("run", document)

    return say


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    for name in SCHEMA["$defs"]:
        assert f'"#/$defs/{name}"' in json.dumps(SCHEMA), f"{name} is used nowhere"


def test_an_object_says_all_there_is_about_a_text(say, speaker):
    document = say(speaker, "--seed", "5")
    new = len(SAID.encode()) + 1
    assert document["model"] == speaker
    assert document["text"] == SAID
    assert (document["finish_reason"], document["finish_detail"]) == ("stop", "eos")
    assert document["usage"] == {
        "prompt_tokens": 20,
        "completion_tokens": new,
        "total_tokens": 20 + new,
        "cached_tokens": 0,
    }
    assert document["memory"]["cache_tokens"] in (20 + new - 1, 20 + new)
    assert document["seed"] == 5
    assert document["versions"]["metal_gen"] == metal_gen.__version__
    assert document["timing"]["ttft_s"] > 0
    assert not {"reasoning", "stop_text", "logprobs", "texts"} & document.keys()


def test_too_few_tokens_tell_no_speed(run_here, speaker):
    for count in (1, 2, 3):
        outcome = run_here("generate", "-m", speaker, "-p", "hi", "--json", "-v", "-n", count)
        document = check("run", json.loads(outcome.stdout))
        assert (document["timing"]["decode_tps"] is None) == (count < 3)
        assert (", then " in outcome.stderr) == (count == 3)


def test_thinking_is_in_the_object_and_not_on_stderr(run_here, thinker):
    outcome = run_here("generate", "-m", thinker, "-p", "hi", "--json")
    document = check("run", json.loads(outcome.stdout))
    assert (document["reasoning"], document["text"]) == ("hm \x1b.", "42")
    assert re.fullmatch(r"metal-gen: seed \d+, \w+\n", outcome.stderr)


def test_the_reason_for_the_end_of_a_text_is_exact(say, speaker):
    stopped = say(speaker, "--stop", "é")
    assert (stopped["text"], stopped["stop_text"]) == ("[red] a", "é")
    assert (stopped["finish_reason"], stopped["finish_detail"]) == ("stop", "stop_text")
    cut = say(speaker, "-n", "3")
    assert (cut["text"], cut["finish_reason"], cut["finish_detail"]) == ("[re", "length", "max_tokens")


def test_log_probabilities_are_in_the_object(run_here, speaker):
    outcome = run_here("generate", "-m", speaker, "-p", "hi", "--json", "--logprobs", "2", "-q")
    document = check("run", json.loads(outcome.stdout))
    assert [token["token_id"] for token in document["logprobs"]] == [*SAID.encode(), 257]
    assert all(len(token["top_model_logprobs"]) == 2 for token in document["logprobs"])
    assert outcome.stderr == ""


def test_several_texts_stand_in_a_list(say, gambler):
    document = say(gambler, "--samples", "3", "-n", "5", "--temperature", "1", "--seed", "1")
    assert len({text["text"] for text in document["texts"]}) > 1
    assert [text["completion_tokens"] for text in document["texts"]] == [5, 5, 5]
    assert document["usage"]["completion_tokens"] == 15
    assert "text" not in document


def test_fields_are_in_one_order_with_and_without_samples(say, thinker):
    given = ("--speculate", "lookup", "--logprobs", "0", "--seed", "1")
    alone = say(thinker, *given)
    sample = say(thinker, *given, "--samples", "2")["texts"][0]
    assert {"reasoning", "speculation", "completion_tokens", "logprobs"} < sample.keys()
    names = [name for name in sample if name != "completion_tokens"]
    assert [name for name in alone if name in sample] == names
    # As in the records of a batch.
    assert list(sample)[list(sample).index("speculation") + 1] == "completion_tokens"


def test_events_join_to_the_text_and_the_last_is_the_whole(run_here, thinker):
    arguments = ("-m", thinker, "-p", "hi", "--logprobs", "1", "--seed", "1")
    outcome = run_here("generate", *arguments, "--jsonl", "-q")
    assert (outcome.code, outcome.stderr) == (0, "")
    *events, end = [check("event", event) for event in lines_of(outcome.stdout.decode())]
    assert {event["event"] for event in events} == {"text", "reasoning"}
    for kind, whole in (("reasoning", end["reasoning"]), ("text", end["text"])):
        assert "".join(event["text"] for event in events if event["event"] == kind) == whole
    assert [event["token_id"] for event in events] == [token["token_id"] for token in end["logprobs"]]
    assert end.pop("event") == "end"
    assert check("run", end).keys() == json.loads(run_here("generate", *arguments, "--json").stdout).keys()


def test_records_on_stderr_are_as_documented(run_here, speaker):
    outcome = run_here("generate", "-m", speaker, "-p", "hi", "--logprobs", "1", "-q")
    assert outcome.stdout == SAID_LINE
    assert len([check("token", record) for record in lines_of(outcome.stderr)]) == len(SAID.encode()) + 1


def test_json_cannot_control_a_terminal_and_is_the_same_text():
    text = "é \x1b[2J \x7f \x9b1m \u202eabc\u2066 \u2028 \ud800 😀"
    encoded = encode_json({"text": text})
    assert json.loads(encoded) == {"text": text}
    assert encoded.isprintable()
    assert "é" in encoded
    assert "😀" in encoded


def test_a_terminal_gets_the_same_line(speaker, tmp_path):
    arguments = ("generate", "-m", speaker, "-p", "hi", "--json", "-q")
    outcome = run_in_terminal(*arguments, home=tmp_path, attached=("stdout",), columns=40)
    assert check("run", json.loads(outcome.screen))["text"] == SAID
    assert b"\x1b" not in outcome.screen


def test_an_interrupted_run_says_how_far_it_came(babbler, tmp_path):
    arguments = ("generate", "-m", babbler, "-p", "hi", "--jsonl", *ENDLESS)
    with start_cli(*arguments, home=tmp_path) as process:
        first = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest, stderr = process.stdout.read(), process.stderr.read()
    assert process.returncode == 130
    *events, end = lines_of((first + rest).decode())
    check("event", end)
    assert (end["event"], end["finish_reason"]) == ("end", "cancelled")
    joined = "".join(event["text"] for event in events)
    assert end["text"].startswith(joined)
    assert len(end["text"]) - len(joined) <= 1
    assert stderr.endswith(b"metal-gen: interrupted\n")


def test_records_and_the_summary_of_a_batch(run_here, tmp_path):
    bodies = {"messages": [{"role": "user", "content": "a fox"}], "max_tokens": 2, "model": "any"}
    rows = [
        {"id": 1, "prompt": "a fox", "max_tokens": 2, "logprobs": 1},
        {"id": "two", "prompt": "an owl", "max_tokens": 2, "samples": 2},
        {"id": 3},
        {"custom_id": "four", "method": "POST", "url": "/v1/chat/completions", "body": bodies},
    ]
    Path("in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    outcome = run_here("batch", "in.jsonl", "-o", "out.jsonl", "--summary", "sum.json", "--ordered")
    assert outcome.code == 7, outcome.stderr
    records = [check("record", record) for record in lines_of(Path("out.jsonl").read_text())]
    assert ["logprobs" in records[0], len(records[1]["texts"]), "error" in records[2]] == [True, 2, True]
    assert records[3]["response"]["status_code"] == 200
    assert check("summary", json.loads(Path("sum.json").read_text()))["failed"] == 1
