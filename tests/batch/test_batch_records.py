"""Tests records: in the form of their rows, valid JSON, with the same keys as the rows."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metal_gen.batch.input.row_parsing import parse_row
from metal_gen.batch.input.rows import BatchRow, RowError, RowErrorCode, repeated
from metal_gen.batch.records import encode_record, error_record, record_key, success_record
from metal_gen.batch.token_texts import TokenTexts
from metal_gen.engine.stopping import FinishDetail
from metal_gen.generation.pieces import Generation, Statistics
from metal_gen.sampling.logprobs import TokenLogprobs
from metal_gen.speculation.counts import SpeculationCounts

NATIVE = {"id": "a", "prompt": "hi"}
CHAT = {
    "custom_id": "a",
    "method": "POST",
    "url": "/v1/chat/completions",
    "body": {"messages": [{"role": "user", "content": "hi"}]},
}
TEXT = {**CHAT, "url": "/v1/completions", "body": {"prompt": "hi"}}
FORMS = pytest.mark.parametrize("row", [NATIVE, CHAT, TEXT], ids=["native", "chat", "completions"])


class Vocabulary:
    """A vocabulary by id, with texts, incomplete characters and a special token."""

    def __init__(self):
        self.words = {5: b"yes", 6: b" \xc3\xa9", 7: b" \xf0\x9f", 8: b"\x98", 9: b"\\x98", 10: b"yes"}
        self.added_ids = {"<|end|>": 2}
        self.special_ids = {2}

    def token_bytes(self, token):
        return self.words.get(token, b"")


TOKENS = TokenTexts(Vocabulary())


def success(row, generations, prompt_tokens, seed):
    return success_record(row, generations, prompt_tokens, seed, TOKENS)


def parse(row, number=7, **options):
    return parse_row(number, json.dumps(row).encode(), **options)


def generation(text="yes", thinking="", ids=(5, 6), finish=FinishDetail.EOS, logprobs=(), **times):
    statistics = Statistics(
        prompt_tokens=3,
        computed_tokens=0,
        completion_tokens=len(ids),
        thinking_tokens=0,
        ttft_s=times.get("seconds", 1.0),
        prefill_tps=times.get("seconds", 1.0),
        decode_tps=times.get("seconds", 1.0),
        seed=1,
        cache_tokens=5,
        peak_memory_bytes=int(times.get("seconds", 1)),
    )
    return Generation(text, thinking, list(ids), finish, None, list(logprobs), statistics)


def test_the_record_of_a_row():
    record = success(parse(NATIVE), [generation()], 3, 9)
    assert list(record.items()) == [
        ("id", "a"),
        ("text", "yes"),
        ("finish_reason", "stop"),
        ("prompt_tokens", 3),
        ("completion_tokens", 2),
        ("seed", 9),
    ]


def test_reasoning_is_there_where_there_is_any():
    record = success(parse(NATIVE), [generation(thinking="hm", finish=FinishDetail.MAX_TOKENS)], 3, 9)
    assert (record["reasoning"], record["finish_reason"]) == ("hm", "length")


def test_several_samples():
    record = success(parse(NATIVE), [generation("a"), generation("b", "hm", ids=(1,))], 3, 9)
    assert record == {
        "id": "a",
        "texts": [
            {"text": "a", "finish_reason": "stop", "completion_tokens": 2},
            {"text": "b", "reasoning": "hm", "finish_reason": "stop", "completion_tokens": 1},
        ],
        "prompt_tokens": 3,
        "seed": 9,
    }


def test_fields_are_in_one_order_in_single_texts_and_samples():
    counts = SpeculationCounts("lookup", passes=2, drafted=3, accepted=1, tokens=2)
    made = generation(thinking="hm", logprobs=[TokenLogprobs(-1.0, -1.0, [])] * 2)
    statistics = replace(made.statistics, thinking_tokens=1, speculation=counts)
    made = replace(made, statistics=statistics, complete=True)
    alone = success(parse(NATIVE), [made], 3, 5)
    [sample, _] = success(parse({**NATIVE, "samples": 2}), [made, made], 3, 5)["texts"]
    assert {"reasoning", "complete", "speculation", "completion_tokens", "logprobs"} < sample.keys()
    assert [name for name in alone if name in sample] == list(sample)


def test_fields_that_are_handed_on_come_after_the_id():
    row = parse({"text": "hi", "label": [1], "id": 4}, field="text")
    record = success(row, [generation()], 3, 9)
    assert list(record)[:3] == ["id", "label", "text"]
    assert (record["label"], record["text"]) == ([1], "yes")


def test_log_probabilities():
    logprobs = [TokenLogprobs(-0.5, -0.25, ((5, -0.5), (8, -1.0))), TokenLogprobs(-math.inf, 0.0, ())]
    given = [generation(logprobs=logprobs)]
    first, second = success(parse(NATIVE), given, 3, 9)["logprobs"]
    assert first == {
        "token_id": 5,
        "model_logprob": -0.5,
        "sampling_logprob": -0.25,
        "top_model_logprobs": [[5, -0.5], [8, -1.0]],
    }
    assert second["model_logprob"] == -9999.0


def logprobs_of(row, ids, top=()):
    """Return the log-probabilities in a record of OpenAI's form, of equally probable tokens."""
    logprobs = [TokenLogprobs(-1.0, -1.0, tuple((id, -2.0 - place) for place, id in enumerate(top)))]
    given = [generation(ids=ids, logprobs=logprobs * len(ids))]
    return success(parse(row), given, 3, 9)["response"]["body"]["choices"][0]["logprobs"]


def test_a_token_of_a_chat_has_its_text_and_its_bytes():
    ids = (5, 6, 7, 8, 2, 99)
    content = logprobs_of(CHAT, ids, top=(6,))["content"]
    assert [(each["token"], each["bytes"]) for each in content] == [
        ("yes", [*b"yes"]),
        (" é", [32, 0xC3, 0xA9]),
        (" \\xf0\\x9f", [32, 0xF0, 0x9F]),
        ("\\x98", [0x98]),
        ("<|end|>", [*b"<|end|>"]),
        ("token_id:99", None),
    ]
    assert content[0]["top_logprobs"] == [{"token": " é", "logprob": -2.0, "bytes": [32, 0xC3, 0xA9]}]


def test_a_token_of_a_completion_has_a_name_that_no_other_text_has():
    found = logprobs_of(TEXT, (5, 7, 2), top=(8, 9, 5, 10))
    assert found["tokens"] == ["yes", "bytes:\\x20\\xf0\\x9f", "<|end|>"]
    assert found["token_logprobs"] == [-1.0, -1.0, -1.0]
    # Of two tokens with the same text, the more probable one counts.
    assert found["top_logprobs"][0] == {"bytes:\\x98": -2.0, "\\x98": -3.0, "yes": -4.0}


def test_an_infinite_log_probability_is_one_that_json_has():
    logprobs = [TokenLogprobs(-math.inf, 0.0, ())]
    record = success(parse(TEXT), [generation(ids=(5,), logprobs=logprobs)], 3, 9)
    assert record["response"]["body"]["choices"][0]["logprobs"]["token_logprobs"] == [-9999.0]


def test_the_record_of_a_chat_request():
    given = [generation("a", "hm"), generation("b", ids=(1,))]
    assert success(parse(CHAT), given, 3, 9) == {
        "id": "batch_req_7",
        "custom_id": "a",
        "response": {
            "status_code": 200,
            "body": {
                "object": "chat.completion",
                "choices": [
                    {
                        "index": 0,
                        "message": {"role": "assistant", "content": "a", "reasoning_content": "hm"},
                        "logprobs": None,
                        "finish_reason": "stop",
                    },
                    {
                        "index": 1,
                        "message": {"role": "assistant", "content": "b"},
                        "logprobs": None,
                        "finish_reason": "stop",
                    },
                ],
                "usage": {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6},
                "seed": 9,
            },
        },
        "error": None,
    }


def test_the_record_of_a_completion_request():
    body = success(parse(TEXT), [generation()], 3, 9)["response"]["body"]
    assert body["object"] == "text_completion"
    assert body["choices"] == [{"index": 0, "text": "yes", "logprobs": None, "finish_reason": "stop"}]


NO_ANSWER = "there is no answer: the text ended while the model was thinking, after 2 tokens"


def no_answer(row, generations):
    parsed = parse(row)
    error = RowError(parsed.number, parsed.id, parsed.key, parsed.form, NO_ANSWER, parsed.carried)
    given = success(parsed, generations, 3, 9)
    return error_record(replace(error, code=RowErrorCode.NO_ANSWER, hint="raise --max-tokens", given=given))


def test_the_record_of_a_row_without_an_answer_keeps_the_thinking():
    record = no_answer(NATIVE, [generation("", "hm", finish=FinishDetail.MAX_TOKENS)])
    said = {"code": "no_answer", "line": 7, "message": NO_ANSWER, "hint": "raise --max-tokens"}
    assert record == {
        "id": "a",
        "error": said,
        "reasoning": "hm",
        "finish_reason": "length",
        "prompt_tokens": 3,
        "completion_tokens": 2,
        "seed": 9,
    }


def test_the_record_of_a_row_of_which_one_sample_has_no_answer_keeps_the_others():
    record = no_answer(NATIVE, [generation("", "hm"), generation("yes", "hm")])
    assert record["error"]["code"] == "no_answer"
    assert [sample["text"] for sample in record["texts"]] == ["", "yes"]


@FORMS
@pytest.mark.parametrize("samples", [1, 2])
def test_a_row_without_an_answer_has_failed_when_it_is_read_back(row, samples):
    record = json.loads(encode_record(no_answer(row, [generation("", "hm")] * samples)))
    assert record_key(record) == (parse(row).key, True)


def test_a_request_without_an_answer_has_an_error_and_keeps_the_response():
    record = no_answer(CHAT, [generation("", "hm")])
    assert record["error"]["code"] == "no_answer"
    assert record["response"]["body"]["choices"][0]["message"]["reasoning_content"] == "hm"


def test_the_record_of_an_error():
    error = error_record(parse({"id": 4, "text": 5, "label": 1}, field="text"))
    assert error == {
        "id": 4,
        "label": 1,
        "error": {"code": "invalid_request", "line": 7, "message": "text must be a text"},
    }
    error = error_record(parse({**CHAT, "method": "GET"}))
    assert (error["id"], error["custom_id"], error["response"]) == ("batch_req_7", "a", None)
    assert error["error"]["message"] == 'method must be POST, not "GET"'


@FORMS
def test_nothing_in_a_record_is_about_time(row):
    slow = success(parse(row), [generation(seconds=100.0)], 3, 9)
    assert encode_record(slow) == encode_record(success(parse(row), [generation()], 3, 9))


@FORMS
@pytest.mark.parametrize("samples", [1, 2])
def test_a_record_that_is_read_back_has_the_key_of_its_row(row, samples):
    parsed = parse(row)
    record = json.loads(encode_record(success(parsed, [generation()] * samples, 3, 9)))
    assert record_key(record) == (parsed.key, False)


@FORMS
@pytest.mark.parametrize("change", [{"id": 5}, {"id": None}, {}], ids=str)
def test_an_error_that_is_read_back_has_the_key_of_its_row(row, change):
    change = {"custom_id" if row is not NATIVE else key: value for key, value in change.items()}
    for parsed in (parse({**row, **change, "nonsense": 1}), repeated(parse({**row, **change}))):
        assert not isinstance(parsed, BatchRow)
        assert record_key(json.loads(encode_record(error_record(parsed)))) == (parsed.key, True)


def test_a_repeated_row_is_not_taken_for_the_first_of_its_id():
    row = parse(NATIVE)
    assert record_key(error_record(repeated(row))) == ("line:7", True)
    assert record_key(success(row, [generation()], 3, 9)) == (row.key, False)


def test_keys_of_rows_without_an_id_and_of_lines_that_cannot_be_read():
    row = parse({"prompt": "hi"})
    assert record_key(success(row, [generation()], 3, 9)) == (row.key, False)
    unread = parse_row(7, b"{")
    assert record_key(error_record(unread)) == ("line:7", True)


def test_fields_that_are_handed_on_may_look_like_a_request():
    row = parse({"q": "hi", "custom_id": "z", "response": "r", "id": "b"}, field="q")
    assert record_key(success(row, [generation()], 3, 9)) == (row.key, False)


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"id": 1},
        {"text": "x"},
        {"id": True, "text": "x"},
        {"id": 1.5, "text": "x"},
        {"id": None, "error": {"message": "x"}},
        {"id": 1, "error": "x"},
        {"id": "batch_req_1", "custom_id": "a", "response": None, "error": None},
    ],
    ids=str,
)
def test_an_invalid_record_has_no_key(record):
    assert record_key(record) is None


@given(st.text(max_size=20) | st.just("half \ud800"), st.sampled_from([NATIVE, CHAT, TEXT]))
def test_a_record_is_one_line_of_json_whatever_the_text(text, row):
    record = success(parse(row), [generation(text)], 3, 9)
    line = encode_record(record)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert json.loads(line) == record


def test_text_is_written_as_it_is():
    assert "é🦊".encode() in encode_record({"text": "é🦊"})
