"""Records: in the form of their rows, JSON, and told apart by the same key that the row has."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metal_gen.batch.input.rows import BatchRow, parse_row, repeated
from metal_gen.batch.records import encode_record, error_record, record_key, success_record
from metal_gen.engine.stopping import FinishDetail
from metal_gen.generation.pieces import Generation, Statistics
from metal_gen.sampling.logprobs import TokenLogprobs

NATIVE = {"id": "a", "prompt": "hi"}
CHAT = {
    "custom_id": "a",
    "method": "POST",
    "url": "/v1/chat/completions",
    "body": {"messages": [{"role": "user", "content": "hi"}]},
}
TEXT = {**CHAT, "url": "/v1/completions", "body": {"prompt": "hi"}}
FORMS = pytest.mark.parametrize("row", [NATIVE, CHAT, TEXT], ids=["native", "chat", "completions"])


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
    record = success_record(parse(NATIVE), [generation()], 3, 9)
    assert list(record.items()) == [
        ("id", "a"),
        ("text", "yes"),
        ("finish_reason", "stop"),
        ("prompt_tokens", 3),
        ("completion_tokens", 2),
        ("seed", 9),
    ]


def test_reasoning_is_there_where_there_is_any():
    record = success_record(parse(NATIVE), [generation(thinking="hm", finish=FinishDetail.MAX_TOKENS)], 3, 9)
    assert (record["reasoning"], record["finish_reason"]) == ("hm", "length")


def test_several_samples():
    record = success_record(parse(NATIVE), [generation("a"), generation("b", "hm", ids=(1,))], 3, 9)
    assert record == {
        "id": "a",
        "texts": [
            {"text": "a", "finish_reason": "stop", "completion_tokens": 2},
            {"text": "b", "reasoning": "hm", "finish_reason": "stop", "completion_tokens": 1},
        ],
        "prompt_tokens": 3,
        "seed": 9,
    }


def test_fields_that_are_handed_on_come_after_the_id():
    row = parse({"text": "hi", "label": [1], "id": 4}, field="text")
    record = success_record(row, [generation()], 3, 9)
    assert list(record)[:3] == ["id", "label", "text"]
    assert (record["label"], record["text"]) == ([1], "yes")


def test_log_probabilities():
    logprobs = [TokenLogprobs(-0.5, -0.25, ((5, -0.5), (8, -1.0))), TokenLogprobs(-math.inf, 0.0, ())]
    given = [generation(logprobs=logprobs)]
    first, second = success_record(parse(NATIVE), given, 3, 9)["logprobs"]
    assert first == {
        "token_id": 5,
        "model_logprob": -0.5,
        "sampling_logprob": -0.25,
        "top_model_logprobs": [[5, -0.5], [8, -1.0]],
    }
    assert second["model_logprob"] == -9999.0
    chat = success_record(parse(CHAT), given, 3, 9)["response"]["body"]["choices"][0]["logprobs"]["content"]
    assert chat[0]["top_logprobs"][1] == {"token": "token_id:8", "logprob": -1.0, "bytes": None}
    text = success_record(parse(TEXT), given, 3, 9)["response"]["body"]["choices"][0]["logprobs"]
    assert text["tokens"] == ["token_id:5", "token_id:6"]
    assert text["token_logprobs"] == [-0.5, -9999.0]


def test_the_record_of_a_chat_request():
    given = [generation("a", "hm"), generation("b", ids=(1,))]
    assert success_record(parse(CHAT), given, 3, 9) == {
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
    body = success_record(parse(TEXT), [generation()], 3, 9)["response"]["body"]
    assert body["object"] == "text_completion"
    assert body["choices"] == [{"index": 0, "text": "yes", "logprobs": None, "finish_reason": "stop"}]


def test_the_record_of_an_error():
    error = error_record(parse({"id": 4, "text": 5, "label": 1}, field="text"))
    assert error == {
        "id": 4,
        "label": 1,
        "error": {"code": "invalid_request", "line": 7, "message": "text must be a text"},
    }
    error = error_record(parse({**CHAT, "method": "GET"}))
    assert (error["id"], error["custom_id"], error["response"]) == ("batch_req_7", "a", None)
    assert error["error"]["message"] == "method must be POST: 'GET'"


@FORMS
def test_nothing_in_a_record_is_about_time(row):
    slow = success_record(parse(row), [generation(seconds=100.0)], 3, 9)
    assert encode_record(slow) == encode_record(success_record(parse(row), [generation()], 3, 9))


@FORMS
@pytest.mark.parametrize("samples", [1, 2])
def test_a_record_that_is_read_back_has_the_key_of_its_row(row, samples):
    parsed = parse(row)
    record = json.loads(encode_record(success_record(parsed, [generation()] * samples, 3, 9)))
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
    assert record_key(success_record(row, [generation()], 3, 9)) == (row.key, False)


def test_keys_of_rows_without_an_id_and_of_lines_that_cannot_be_read():
    row = parse({"prompt": "hi"})
    assert record_key(success_record(row, [generation()], 3, 9)) == (row.key, False)
    unread = parse_row(7, b"{")
    assert record_key(error_record(unread)) == ("line:7", True)


def test_fields_that_are_handed_on_may_look_like_a_request():
    row = parse({"q": "hi", "custom_id": "z", "response": "r", "id": "b"}, field="q")
    assert record_key(success_record(row, [generation()], 3, 9)) == (row.key, False)


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
def test_what_is_no_record_has_no_key(record):
    assert record_key(record) is None


@given(st.text(max_size=20) | st.just("half \ud800"), st.sampled_from([NATIVE, CHAT, TEXT]))
def test_a_record_is_one_line_of_json_whatever_the_text(text, row):
    record = success_record(parse(row), [generation(text)], 3, 9)
    line = encode_record(record)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert json.loads(line) == record


def test_text_is_written_as_it_is():
    assert "é🦊".encode() in encode_record({"text": "é🦊"})
