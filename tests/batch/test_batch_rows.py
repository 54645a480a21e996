"""Tests rows: each form is parsed, and each invalid row gets one clear reason."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metal_gen.batch.input.row_parsing import parse_row
from metal_gen.batch.input.rows import BatchRow, RowError, RowErrorCode, RowForm, repeated

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
CHAT_URL = "/v1/chat/completions"
TEXT_URL = "/v1/completions"
HELLO = [{"role": "user", "content": "hello"}]


def parse(row, number=7, **options):
    line = row if isinstance(row, bytes) else json.dumps(row).encode()
    return parse_row(number, line, **options)


def good(row, **options):
    parsed = parse(row, **options)
    assert isinstance(parsed, BatchRow), parsed.reason
    return parsed


def reason(row, **options):
    parsed = parse(row, **options)
    assert isinstance(parsed, RowError), parsed
    assert not parsed.reason.endswith(".")
    assert "\n" not in parsed.reason
    return parsed.reason


def request(body, url=CHAT_URL, **envelope):
    return {"custom_id": "a", "method": "POST", "url": url, "body": body, **envelope}


# The program's own form


def test_a_row_with_a_prompt_and_settings():
    row = good({"id": "a", "prompt": "hi", "temperature": 0, "stop": ["x"], "seed": 5, "thinking": False})
    assert (row.id, row.prompt, row.form, row.carried) == ("a", "hi", RowForm.NATIVE, {})
    assert row.settings == {"temperature": 0.0, "stop": ("x",), "seed": 5, "thinking": False}


def test_a_row_with_messages():
    assert good({"messages": HELLO}).prompt == HELLO


@pytest.mark.parametrize(
    ("given", "settings"),
    [
        ({"n": 3}, {"samples": 3}),
        ({"max_completion_tokens": 9}, {"max_tokens": 9}),
        ({"stop": "END"}, {"stop": ("END",)}),
        ({"stop": None}, {}),
        ({"stop": []}, {"stop": ()}),
        ({"stop_token": "<|im_end|>"}, {"stop_token": ("<|im_end|>",)}),
        ({"logit_bias": {"5": -100, "a": 1}}, {"logit_bias": (("5", -100.0), ("a", 1.0))}),
        ({"logprobs": 4}, {"logprobs": 4}),
        ({"logprobs": True}, {"logprobs": 0}),
        ({"logprobs": True, "top_logprobs": 3}, {"logprobs": 3}),
        ({"logprobs": False}, {}),
        ({"temperature": None, "nonsense": None}, {}),
        ({"max_tokens": 3.0, "top_k": 5e0, "seed": 2.0**53}, {"max_tokens": 3, "top_k": 5, "seed": 2**53}),
    ],
    ids=str,
)
def test_settings_by_their_own_names_and_by_those_of_other_apis(given, settings):
    assert good({"prompt": "hi", **given}).settings == settings


def test_a_row_without_an_id_has_the_number_of_its_line():
    assert good({"prompt": "hi"}, number=12).id == 12
    assert good({"id": None, "prompt": "hi"}, number=12).key == good({"id": 12, "prompt": "hi"}).key


def test_a_number_and_its_digits_are_two_ids():
    keys = {good({"id": id, "prompt": "hi"}).key for id in (1, "1", "int:1", "str:1", "line:7")}
    assert len(keys) == 5
    assert parse(b"nonsense").key not in keys


@pytest.mark.parametrize(
    ("line", "part"),
    [
        (b'{"prompt": "\xff"}', "not UTF-8: byte 12 is 0xff"),
        (b'{"prompt": "hi"', "not JSON: a comma or the closing bracket is missing at character 16"),
        (b"{'prompt': 'hi'}", "not JSON: a name in double quotes is missing at character 2"),
        (b'["hi"]', "must be a JSON object, not a list"),
        (b"null", "must be a JSON object, not null"),
        (b"1.5", "must be a JSON object, not a number"),
        (b'{"prompt": "hi", "seed": NaN}', "NaN"),
        (b'{"prompt": "hi", "seed": -Infinity}', "-Infinity"),
        (b'{"prompt": "hi", "temperature": 1e999}', "too large: 1e999"),
        (b'{"prompt": "hi", "prompt": "ho"}', "a name that occurs twice: prompt"),
        (b'{"prompt": "hi", "seed": ' + b"9" * 5000 + b"}", "a number of 5,000 digits"),
        (b'{"prompt": ' + b"[" * 101 + b"]" * 101 + b"}", "nested deeper than 100 levels"),
        (b'{"prompt": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", "nested deeper than 100 levels"),
        (b'{"a":' * 200_000 + b"1" + b"}" * 200_000, "nested deeper than 100 levels"),
    ],
    ids=lambda value: value[:40] if isinstance(value, bytes) else "",
)
def test_a_line_that_cannot_be_read(line, part):
    error = parse(line)
    assert isinstance(error, RowError)
    assert part in error.reason
    assert (error.number, error.id, error.key, error.carried) == (7, None, "line:7", {})


def test_a_row_without_a_prompt_is_told_the_field_that_may_be_one():
    error = parse(b'{"nr": "1", "review": "Broke after a day.", "stars": 2}')
    assert (error.reason, error.hint) == (
        "there is neither a prompt nor messages",
        '--field "review" takes the prompt from there',
    )
    assert not parse(b'{"nr": 1}').hint
    assert parse(b'{"nr": "1", "review": "x"}', field="reviews").hint == 'did you mean "review"?'
    assert not parse(b'{"id": 1}', field="reviews").hint


def test_one_of_very_many_names_is_there_twice():
    names = ", ".join(f'"{number}": 1' for number in range(120_000))
    assert "twice: 119999" in reason(f'{{{names}, "119999": 2}}'.encode())


@pytest.mark.parametrize("damage", [b"", b", }", b', "prompt": "\xff"}', b', "n": ' + b"9" * 5000 + b"}"])
def test_a_line_that_cannot_be_read_is_known_by_an_id_before_the_damage(damage):
    error = parse(b'{"id": "a", "prompt": "hi"' + damage)
    assert (error.id, error.key, error.number) == ("a", "str:a", 7)


def test_a_byte_order_mark_may_begin_a_line():
    assert good(b'\xef\xbb\xbf{"prompt": "hi"}').prompt == "hi"


@pytest.mark.parametrize(
    ("row", "part"),
    [
        ({}, "neither a prompt nor messages"),
        ({"prompt": None}, "neither a prompt nor messages"),
        ({"prompt": "hi", "messages": HELLO}, "both a prompt and messages"),
        ({"prompt": ""}, "the prompt is empty"),
        ({"prompt": 5}, "prompt must be a text"),
        ({"prompt": HELLO}, "a conversation goes under messages"),
        ({"prompt": "a\ud800"}, "unpaired surrogate, '\\ud800', at character 2"),
        ({"messages": "hi"}, "messages must be a list"),
        ({"messages": []}, "the list messages is empty"),
        ({"messages": ["hi"]}, "message 1 of messages must be an object"),
        ({"messages": [*HELLO, {"content": "x"}]}, "message 2 of messages must have a role"),
        ({"messages": [{"role": "user"}]}, "must have a content"),
        ({"messages": [{"role": "user", "content": 5}]}, "must have a content that is a text"),
        ({"messages": [{"role": "usr", "content": "x"}]}, "'usr': did you mean user?"),
        ({"messages": [{"role": "user", "content": "x", "tool_calls": [1]}]}, "'tool_calls'"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "only text can be used"),
        ({"prompt": "hi", "max_token": 5}, 'there is no parameter "max_token"'),
        ({"prompt": "hi", "max_seq_len": 5}, "max_seq_len is a setting of the whole run"),
        ({"prompt": "hi", "model": "x"}, "model is a setting of the whole run"),
        ({"prompt": "hi", "temperature": -1}, "temperature must be a number of at least 0"),
        (
            {"prompt": "hi", "max_tokens": True},
            "max_tokens must be a whole number of at least 1, or -1 for no limit, not true",
        ),
        ({"prompt": "hi", "max_tokens": 2.5}, "max_tokens must be a whole number"),
        ({"prompt": "hi", "max_tokens": 10**99}, "max_tokens must be at most 9223372036854775807, not 1000"),
        ({"prompt": "hi", "n": 0}, "n must be a whole number"),
        ({"prompt": "hi", "n": 2, "samples": 2}, "samples is given twice: as n and as samples"),
        ({"prompt": "hi", "stop": ""}, "stop must be a list"),
        ({"prompt": "hi", "logit_bias": [5]}, "logit_bias must be a table"),
        ({"prompt": "hi", "top_logprobs": 5}, "top_logprobs needs logprobs"),
    ],
    ids=str,
)
def test_a_row_that_cannot_be_used_is_still_known_by_its_id(row, part):
    error = parse({"id": "a", **row})
    assert isinstance(error, RowError)
    assert part in error.reason
    assert (error.id, error.key) == ("a", good({"id": "a", "prompt": "hi"}).key)


@pytest.mark.parametrize("id", ["", 1.0, True, [1], {}, "a\udc00"], ids=repr)
def test_an_id_of_another_type(id):
    error = parse({"id": id, "prompt": "hi"})
    assert error.reason.startswith("id ")
    assert (error.id, error.key) == (None, "line:7")


def test_a_message_in_parts_is_joined_and_what_is_null_is_left_out():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    row = good({"messages": [{"role": "user", "content": parts, "name": "x", "refusal": None}]})
    assert row.prompt == [{"role": "user", "content": "ab", "name": "x"}]


# OpenAI's forms


def test_a_chat_request():
    body = {"model": "m", "messages": HELLO, "stream": False, "n": 2, "user": "u", "max_completion_tokens": 4}
    row = good(request(body))
    assert (row.id, row.form, row.prompt) == ("a", RowForm.CHAT, HELLO)
    assert row.settings == {"samples": 2, "max_tokens": 4}


def test_a_completion_request_continues_its_prompt_as_it_is():
    row = good(request({"prompt": "once", "logprobs": 2}, TEXT_URL))
    assert (row.form, row.prompt) == (RowForm.COMPLETIONS, "once")
    assert row.settings == {"raw": True, "logprobs": 2}
    assert good(request({"prompt": "once", "raw": False}, TEXT_URL)).settings == {"raw": False}


def test_the_switch_of_the_template():
    body = {"messages": HELLO, "chat_template_kwargs": {"enable_thinking": False}}
    assert good(request(body)).settings == {"thinking": False}
    body = {"messages": HELLO, "chat_template_kwargs": {"enable_thinking": True, "effort": "low"}}
    assert good(request(body)).settings == {"thinking": True, "template_arg": (("effort", "low"),)}


def test_rows_have_variables_and_a_prefill_of_their_own():
    row = good({"prompt": "hi", "prefill": "Sure", "template_arg": {"effort": "low"}})
    assert row.settings == {"prefill": "Sure", "template_arg": (("effort", "low"),)}


@pytest.mark.parametrize(
    ("row", "part"),
    [
        (request({"messages": HELLO, "stream": True}), "stream can only be false"),
        (request({"messages": HELLO, "tools": [{}]}), "a function without a name"),
        (
            request({"messages": HELLO, "response_format": {"type": "xml"}}),
            "response_format must be text, json_object, or json_schema with a schema",
        ),
        (
            request({"messages": HELLO, "response_format": {"type": "json_object"}, "regex": "a"}),
            "response_format is given together with another constraint",
        ),
        (request({"messages": HELLO, "temprature": 1}), 'there is no parameter "temprature"'),
        (request({"prompt": "hi"}), "has messages, not a prompt"),
        (request({"messages": HELLO}, TEXT_URL), "has a prompt, not messages"),
        (request({"prompt": ["a", "b"]}, TEXT_URL), "prompt must be a text"),
        (request({"messages": HELLO}, "/v1/embeddings"), "url must be"),
        (request({"messages": HELLO}, method="GET"), 'method must be POST, not "GET"'),
        (request([]), "body must be an object"),
        (request({"messages": HELLO}, bdy={}), 'a request has no field "bdy" next to its body'),
        (request({"messages": HELLO, "chat_template_kwargs": 5}), "must be an object"),
        (request({"messages": HELLO, "chat_template_kwargs": {"messages": []}}), "cannot set messages"),
        (
            request({"messages": HELLO, "chat_template_kwargs": {"x": 1}, "template_arg": {"x": 1}}),
            "template_arg is given twice",
        ),
    ],
)
def test_a_request_that_cannot_be_used(row, part):
    error = parse(row)
    assert part in reason(row)
    assert error.id == "a"
    assert error.form in (RowForm.CHAT, RowForm.COMPLETIONS)


def test_a_request_without_an_id():
    error = parse({"url": TEXT_URL, "body": {"prompt": "x"}})
    assert (error.id, error.key, error.form) == (None, "line:7", RowForm.COMPLETIONS)
    assert error.reason == "there is no custom_id"


# A field of any name


def test_all_other_fields_are_handed_on_and_none_is_a_setting():
    fields = {"label": None, "temperature": 9000, "nested": [{"x": 1.5}]}
    row = good({"id": 4, "text": "hi", **fields}, field="text")
    assert (row.id, row.prompt, row.settings, row.carried) == (4, "hi", {}, fields)


def test_a_field_may_hold_a_conversation():
    assert good({"turns": HELLO}, field="turns").prompt == HELLO


@pytest.mark.parametrize(
    ("row", "part"),
    [
        ({"a": "b"}, 'there is no field "text"'),
        ({"text": None, "a": "b"}, 'there is no field "text"'),
        ({"text": 5, "a": "b"}, "text must be a text"),
    ],
    ids=str,
)
def test_an_error_hands_fields_on_too(row, part):
    assert part in reason(row, field="text")
    assert parse(row, field="text").carried == {"a": "b"}


def test_fields_that_are_called_as_those_of_a_record_are_kept_under_another_name():
    fields = {"text": "hi", "seed": 4, "input_seed": 5, "error": {}, "note": None}
    kept = {"input_text": "hi", "input_input_seed": 4, "input_seed": 5, "input_error": {}, "note": None}
    assert good({"id": 1, "q": "x", **fields}, field="q").carried == kept
    # In this form, a seed is a setting.
    row = good({"id": 1, "prompt": "x", **fields}, keep_fields=True)
    assert row.settings == {"seed": 4}
    assert row.carried == {name: value for name, value in kept.items() if value != 4}


def test_fields_are_kept_on_request_whatever_a_request_would_do_with_them():
    fields = {"url": "https://example.org", "body": "text", "model": "x", "temprature": 1}
    row = good({"prompt": "hi", **fields}, keep_fields=True)
    assert (row.form, row.settings, row.carried) == (RowForm.NATIVE, {}, fields)
    error = parse({"id": 3, "prompt": "hi", "top_p": 7, **fields}, keep_fields=True)
    assert (error.id, error.carried) == (3, fields)
    assert good(request({"messages": HELLO}), keep_fields=True).carried == {}


@pytest.mark.parametrize(
    ("row", "hint"),
    [
        ({"prompt": "hi", "meta": 1}, "--keep-fields copies fields that are not parameters to the record"),
        ({"prompt": "hi", "max_token": 1}, "did you mean max_tokens? --keep-fields copies"),
        (request({"messages": HELLO, "temprature": 1}), "did you mean temperature?"),
        (request({"messages": HELLO}, bdy={}), "did you mean body?"),
    ],
)
def test_what_to_do_about_a_name_that_is_unknown(row, hint):
    assert parse(row).hint.startswith(hint)


def test_messages_about_a_row_are_short_whatever_it_contains():
    long = "x" * 100_000
    for row in ({"id": long, "prompt": ""}, {"prompt": 1, long: 1}, {"prompt": "a", long: 1}):
        for error in (parse(row), repeated(parse(row))):
            assert len(error.reason) < 600
            assert len(error.hint) < 600


# Any line at all


@given(st.binary(max_size=60))
def test_no_bytes_are_too_strange(line):
    assert parse_row(3, line).number == 3


@given(st.dictionaries(st.sampled_from(["id", "prompt", "messages", "n", "stop", "logprobs", "x"]), VALUES))
def test_no_values_are_too_strange(row):
    for field in (None, "x"):
        parsed = parse_row(3, json.dumps(row).encode(), field=field)
        assert isinstance(parsed, RowError) or parsed.prompt


@given(
    st.dictionaries(st.sampled_from(["messages", "stream", "n", "logprobs", "tools", "top_logprobs"]), VALUES)
)
def test_no_request_is_too_strange(body):
    assert parse_row(3, json.dumps(request(body)).encode()).id == "a"


@given(VALUES)
def test_what_is_handed_on_is_unchanged(value):
    row = parse_row(3, json.dumps({"text": "hi", "extra": value}).encode(), field="text")
    assert isinstance(row, BatchRow)
    assert json.dumps(row.carried) == json.dumps({"extra": value})


def test_a_repeated_row_has_the_key_of_its_line():
    for row in (parse({"id": "a", "prompt": "hi"}), parse({"id": "a"})):
        error = repeated(row)
        assert (error.id, error.key, error.code) == ("a", "line:7", RowErrorCode.DUPLICATE_ID)
        assert 'an earlier row has the same id "a"' in error.reason


@pytest.mark.parametrize(
    ("response_format", "settings"),
    [
        ({"type": "text"}, {}),
        ({"type": "json_object"}, {"schema": '{"type": "object"}'}),
        (
            {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "integer"}}},
            {"schema": '{"type": "integer"}'},
        ),
    ],
    ids=range(3),
)
def test_what_a_request_asks_for_under_response_format(response_format, settings):
    assert parse(request({"messages": HELLO, "response_format": response_format})).settings == settings


def test_a_row_has_a_schema_of_its_own_and_names_no_file():
    row = {"prompt": "hi", "schema": {"type": "integer"}}
    assert parse(row).settings == {"schema": '{"type": "integer"}'}
    assert parse({"prompt": "hi", "choice": ["a", "b"]}).settings == {"choice": ("a", "b")}
    assert parse({"prompt": "hi", "grammar": "/etc/passwd"}).settings == {"grammar": "/etc/passwd"}
    assert "must be a JSON Schema" in reason({"prompt": "hi", "schema": False})
    assert "at least one text" in reason({"prompt": "hi", "choice": []})
