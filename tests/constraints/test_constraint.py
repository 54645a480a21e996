"""Which constraints can be kept to, what is said of the others, and what each allows."""

import json
import sys
import unicodedata

import pytest
from tiny_text_checkpoint import IM_END, remove_bytes, write_text_checkpoint

from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.constraints.constraint import Constraint
from metal_gen.constraints.matcher import GrammarMatcher
from metal_gen.constraints.token_table import TokenTable
from metal_gen.errors import UsageError


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return Checkpoint(write_text_checkpoint(tmp_path_factory.mktemp("checkpoint")))


def follow(checkpoint, constraint, text):
    """Feed a text byte by byte; return the matcher, or None at a byte that is not allowed."""
    matcher = GrammarMatcher(checkpoint.token_table, constraint)
    for token in text.encode():
        words = matcher.allowed().tolist()[0]
        if not words[token // 32] >> token % 32 & 1:
            return None
        matcher.accept(token)
    return matcher


@pytest.mark.parametrize(
    ("constraint", "fits", "fits_not"),
    [
        (Constraint.schema({"type": "integer"}), ["12", "-3"], ["1.5", "x", " 1", '"1"']),
        (Constraint.schema({"enum": ["a", 1, None]}), ['"a"', "1", "null"], ["2", '"b"']),
        (
            Constraint.schema({"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"]}),
            ['{"a":1}', '{"a":1,"b":[]}'],
            ["{}", '{"b":1}', '{"a": 1}'],
        ),
        (Constraint.schema("{}"), ["[]", '{"a":{}}', "null"], ["nil"]),
        (Constraint.regex("a{2,3}b?"), ["aa", "aaab"], ["b", "aaaa", "abb"]),
        (
            Constraint.choice('say "hi"', "back\\slash", "new\nline", "é😀", "\x01\x7f", "a", "ab"),
            ['say "hi"', "back\\slash", "new\nline", "é😀", "\x01\x7f", "a", "ab"],
            ["b", "say hi", "new line"],
        ),
        (Constraint.lark('start: "x" rest*\nrest: ("," /[0-9]/)'), ["x", "x,1,2"], [",", "x,", "x1"]),
    ],
    ids=range(7),
)
def test_what_fits_is_accepted_and_nothing_else(checkpoint, constraint, fits, fits_not):
    checkpoint.token_table.require_usable(constraint)
    for text in fits:
        assert follow(checkpoint, constraint, text).is_complete, text
    for text in fits_not:
        matcher = follow(checkpoint, constraint, text)
        assert matcher is None or not matcher.is_complete, text


def test_the_end_of_a_text_is_allowed_when_it_is_complete(checkpoint):
    matcher = follow(checkpoint, Constraint.regex("ab*"), "ab")
    assert matcher.allowed().tolist()[0][IM_END // 32] >> IM_END % 32 & 1
    assert not matcher.is_over
    matcher.accept(IM_END)
    assert matcher.is_over
    assert follow(checkpoint, Constraint.regex("ab"), "ab").is_over
    before = follow(checkpoint, Constraint.regex("ab"), "a").allowed().tolist()[0]
    assert not before[IM_END // 32] >> IM_END % 32 & 1


def test_without_a_token_that_ends_a_text_no_other_is_allowed_in_its_place(checkpoint):
    matcher = GrammarMatcher(TokenTable(checkpoint.tokenizer, ()), Constraint.regex("ab*c?"))
    matcher.accept(ord("a"))
    words = matcher.allowed().tolist()[0]
    assert [token for token in range(32 * len(words)) if words[token // 32] >> token % 32 & 1] == [*b"bc"]
    assert matcher.is_complete
    matcher.accept(ord("c"))
    assert matcher.is_over
    assert matcher.is_complete


def test_added_tokens_are_no_part_of_a_string(checkpoint):
    matcher = follow(checkpoint, Constraint.schema({"type": "string"}), '"a')
    words = matcher.allowed().tolist()[0]
    assert words[ord("<") // 32] >> ord("<") % 32 & 1
    added = checkpoint.tokenizer.added_ids.values()
    assert not any(words[token // 32] >> token % 32 & 1 for token in added)


def test_what_must_come_is_forced(checkpoint):
    schema = {"type": "object", "properties": {"name": {"type": "boolean"}}, "required": ["name"]}
    matcher = GrammarMatcher(checkpoint.token_table, Constraint.schema(schema))
    assert bytes(matcher.forced()) == b'{"name":'


def test_matchers_of_one_constraint_do_not_share_a_place(checkpoint):
    constraint = Constraint.choice("ab", "cd")
    first = GrammarMatcher(checkpoint.token_table, constraint)
    first.accept(ord("a"))
    assert bytes(GrammarMatcher(checkpoint.token_table, constraint).forced()) == b""
    assert bytes(first.forced()) == b"b"


@pytest.mark.parametrize(
    ("schema", "part"),
    [
        ({"not": {}}, "keyword not, which is not supported"),
        ({"if": {}, "then": {}}, "keywords if, then, which are not supported"),
        ({"type": "array", "contains": {}}, "keyword contains"),
        ({"type": "array", "uniqueItems": True}, "keyword uniqueItems"),
        ({"type": "object", "dependentRequired": {"a": ["b"]}}, "keyword dependentRequired"),
        ({"type": "object", "unevaluatedProperties": False}, "keyword unevaluatedProperties"),
        ({"$dynamicRef": "#a"}, "keyword $dynamicRef"),
        ({"$ref": "https://example.com/a.json"}, "refers to https://example.com/a.json"),
        ({"$ref": "#/$defs/none"}, "does not exist"),
        ({"type": "string", "format": "colour"}, "format colour, which is not supported"),
        ({"type": "string", "pattern": "(?=a)b"}, "look-around"),
        ({"oneOf": [{"type": "integer"}, {"minimum": 2}]}, "oneOf with parts that overlap"),
        ({"type": "integer", "minimum": 5, "maximum": 3}, "no document fits the schema"),
        ({"type": "strin"}, "Invalid type: strin"),
        # What a schema says of the matcher is not for the schema to say.
        ({"x-guidance": {"lenient": True}, "not": {}}, "keyword not"),
    ],
    ids=range(15),
)
def test_a_schema_that_cannot_be_kept_to_is_refused_by_name(checkpoint, schema, part):
    with pytest.raises(UsageError, match="schema") as error:
        checkpoint.token_table.require_usable(Constraint.schema(schema))
    assert part in error.value.message
    assert error.value.hint
    assert "\n" not in error.value.message


@pytest.mark.parametrize(
    "keywords",
    [
        {"format": "date", "minLength": 20},
        {"pattern": "^a{5}$", "maxLength": 3},
        {"format": "date", "enum": ["x"]},
        {"allOf": [{"pattern": "^a$"}, {"pattern": "^b$"}]},
    ],
    ids=range(4),
)
def test_keywords_of_a_string_that_exclude_one_another(checkpoint, keywords):
    with pytest.raises(UsageError) as error:
        checkpoint.token_table.require_usable(Constraint.schema({"type": "string", **keywords}))
    assert error.value.message == (
        "no document fits the schema: patterns, formats, lengths or values of a string exclude one another"
    )
    assert error.value.hint == "correct the schema"


@pytest.mark.parametrize(
    ("constraint", "part"),
    [
        (Constraint.regex("(?<=a)b"), "look-around"),
        (Constraint.regex("(a)\\1"), "backreferences are not supported"),
        (Constraint.regex("(a"), "unclosed group"),
        (Constraint.lark("start: other"), 'unknown name: "other"'),
        (Constraint.lark("begin: 'a'"), "grammar cannot be used"),
    ],
    ids=range(5),
)
def test_other_constraints_that_cannot_be_used(checkpoint, constraint, part):
    with pytest.raises(UsageError) as error:
        checkpoint.token_table.require_usable(constraint)
    assert part in error.value.message
    assert "\n" not in error.value.message


def test_a_grammar_that_no_token_can_begin(checkpoint):
    constraint = Constraint.regex(r"[^\x00-\u{10FFFF}]")
    with pytest.raises(UsageError, match="no token of this model can begin the regex"):
        GrammarMatcher(checkpoint.token_table, constraint)


def test_a_byte_that_no_token_has_ends_the_text_with_a_reason(tmp_path):
    folder = write_text_checkpoint(tmp_path / "model")
    tokenizer = Checkpoint(folder).tokenizer
    del tokenizer._vocabulary.ids["x"]
    checkpoint = Checkpoint(folder)
    checkpoint.__dict__["tokenizer"] = tokenizer
    matcher = follow(checkpoint, Constraint.regex("[abc]x"), "a")
    assert not any(matcher.allowed().tolist()[0])
    assert "cannot continue within the regex after 1 token:" in matcher.error.message


NAMED = {"type": "object", "properties": {"é": {"const": 1}}, "required": ["é"]}
LAST = {
    "type": "object",
    "properties": {"a": {"type": "string"}, "b": {"type": "array", "items": {"type": "integer"}}, "é": {}},
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("missing", "constraint", "needed"),
    [
        ("é".encode(), Constraint.schema(NAMED), "the schema needs the byte 0xc3 of 'é'"),
        ("é".encode(), Constraint.schema(LAST), "the schema needs the byte 0xc3 of 'é'"),
        ("é".encode(), Constraint.choice("é"), "the choice needs the byte 0xc3 of 'é'"),
        ("é".encode()[1:], Constraint.choice("é", "b"), "the choice needs the byte 0xa9"),
        (b"x", Constraint.regex("[abc]{3}x"), "the regex needs the byte 0x78 of 'x'"),
        (b"x", Constraint.lark('start: "a" b\nb: /[0-9]/ "xy"'), "the grammar needs the byte 0x78 of 'x'"),
        (b'"', Constraint.schema({"type": "string"}), "the schema needs the byte 0x22 of '\"'"),
        ("é".encode(), Constraint.schema({"type": "array", "items": {"type": "integer"}}), None),
        ("é".encode(), Constraint.choice("é", "b"), None),
        ("é".encode(), Constraint.lark('start: <think> "a"'), None),
        (b"\xc0\xff", Constraint.schema(NAMED), None),
        ("é".encode(), Constraint.choice("x" * 300 + "é"), "the choice needs the byte 0xc3 of 'é'"),
    ],
    ids=range(12),
)
def test_a_byte_that_a_constraint_needs_and_no_token_has(tmp_path, missing, constraint, needed):
    remove_bytes(write_text_checkpoint(tmp_path), missing)
    table = Checkpoint(tmp_path).token_table
    if needed is None:
        table.require_usable(constraint)
        return
    with pytest.raises(UsageError) as error:
        table.require_usable(constraint)
    assert error.value.message == f"{needed}, for which this model has no token"
    assert error.value.hint == "use other characters, or a model that has them"


@pytest.mark.parametrize(
    ("constraint", "reason"),
    [
        (Constraint.lark(""), "the grammar cannot be used: Empty grammar"),
        (Constraint.lark("start:"), "only the empty text fits the grammar"),
        (Constraint.lark('start: ""'), "only the empty text fits the grammar"),
        (Constraint.lark("start: start"), "no text fits the grammar"),
        (Constraint.regex("()"), "only the empty text fits the regex"),
        (Constraint.regex(r"[^\x00-\u{10FFFF}]"), "no text fits the regex"),
        (
            Constraint.lark("start: <none>"),
            'the grammar cannot be used: at 1(8): unknown special token: "<none>"',
        ),
    ],
    ids=range(7),
)
def test_constraints_that_no_text_fits(checkpoint, constraint, reason):
    with pytest.raises(UsageError) as error:
        checkpoint.token_table.require_usable(constraint)
    assert error.value.message.startswith(reason)
    assert error.value.hint


def test_a_name_whose_characters_the_tokenizer_composes(tmp_path):
    path = write_text_checkpoint(tmp_path) / "tokenizer.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "normalizer": {"type": "NFC"}}))
    name = unicodedata.normalize("NFD", "é")
    schema = {"type": "object", "properties": {name: {"const": 1}}, "required": [name]}
    matcher = GrammarMatcher(Checkpoint(tmp_path).token_table, Constraint.schema(schema))
    assert bytes(matcher.forced()).decode() == f'{{"{name}":1'


def test_an_object_of_thousands_of_properties(checkpoint):
    properties = {f"p{number}": {"type": "integer"} for number in range(1500)}
    matcher = follow(
        checkpoint, Constraint.schema({"type": "object", "properties": properties}), '{"p7":1,"p1499":2}'
    )
    assert matcher.is_complete


def test_without_the_library_one_sentence_says_how_to_install_it(checkpoint, monkeypatch):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(UsageError, match="needs llguidance, which is not installed") as error:
        checkpoint.token_table.require_usable(Constraint.regex("a"))
    assert error.value.hint == "in the checkout: pip install '.[structured]'"
