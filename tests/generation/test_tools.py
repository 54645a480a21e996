"""Tools: what the template is told of, calls as data, and calls that have to come."""

import json

import jsonschema
import pytest
from tiny_text_checkpoint import CALL, CHATML, END_CALL, write_text_checkpoint

import metal_gen
from metal_gen.batch.input.row_parsing import parse_row
from metal_gen.config.constraints.tools import Tools
from metal_gen.constraints.constraint import Constraint
from metal_gen.constraints.matcher import GrammarMatcher
from metal_gen.errors import UsageError
from metal_gen.generation.guides.tool_grammar import tool_choice_grammar
from metal_gen.generation.prompt import encode_as_set
from metal_gen.text.tool_calls import parse_tool_calls

TEMPLATE = "{% for tool in tools or [] %}{{ tool.function.name }};{% endfor %}" + CHATML
XML_TEMPLATE = "{# <function= #}" + TEMPLATE
PARAMETERS = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 5},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
        "unit": {"type": "string", "enum": ["c", "f"]},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
}
TOOLS = [{"name": "weather", "description": "?", "parameters": PARAMETERS}, {"name": "now"}]
RANDOM = {"temperature": 1.5, "max_tokens": 190, "tools": TOOLS}


@pytest.fixture
def load(tmp_path):
    def load(says=None, **changes):
        options = {"chat_template": TEMPLATE, "has_calls": True, **changes}
        folder = write_text_checkpoint(tmp_path / "model", says=says, **options)
        return metal_gen.load(folder, max_seq_len=256)

    return load


def test_the_template_is_told_of_the_tools(load):
    model = load(b"abc")
    settings = model.settings.override({"tools": Tools()(TOOLS)}, "a test")
    with_tools = encode_as_set(model.checkpoint, "hi", settings).ids
    assert bytes(with_tools[:12]) == b"weather;now;"
    forbidden = settings.override({"tool_choice": "none"}, "a test")
    assert encode_as_set(model.checkpoint, "hi", forbidden).ids == with_tools[12:]
    plain = load(b"abc", chat_template=CHATML)
    notices = encode_as_set(plain.checkpoint, "hi", settings).notices
    assert notices == ("tools has no effect: this checkpoint's chat template does not use it",)


def test_a_call_in_the_answer_is_data(load):
    model = load([*b"A", CALL, *b"{4}", END_CALL])
    made = metal_gen.generate(model, "hi", tools=TOOLS)
    assert (made.text, made.tool_calls, made.unparsed_tool_calls) == (
        "A<tool_call>{4}</tool_call>",
        (),
        1,
    )
    assert metal_gen.generate(model, "hi").unparsed_tool_calls == 0


@pytest.mark.parametrize("template", [TEMPLATE, XML_TEMPLATE], ids=["json", "xml"])
@pytest.mark.parametrize("seed", range(4))
def test_a_call_that_has_to_come_fits_its_parameters(load, template, seed):
    model = load(chat_template=template)
    made = metal_gen.generate(model, "hi", tool_choice="weather", seed=seed, **RANDOM)
    if template == XML_TEMPLATE and not made.complete:
        # Nothing but its end tag ends a text there.
        assert made.finish == "max_tokens"
        return
    (call,) = made.tool_calls
    assert (made.complete, made.text, call.name) == (True, "", "weather")
    if template == TEMPLATE:
        jsonschema.validate(json.loads(call.arguments), PARAMETERS)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "string", "pattern": "^a+$"}, "aa"),
        ({"type": "string", "const": "k"}, "k"),
        ({"type": "string"}, "x\n</tool_call> <parameter=y>"),
        ({"type": ["string", "null"]}, '"a"'),
        ({"type": "number"}, "2.5"),
    ],
    ids=str,
)
def test_what_a_call_in_xml_may_say_is_read_as_it_was_meant(load, schema, value):
    tool = {"type": "function", "function": {"name": "f", "parameters": {"properties": {"p": schema}}}}
    grammar = tool_choice_grammar([tool], "f", is_xml=True)
    matcher = GrammarMatcher(load(b"abc").checkpoint.token_table, Constraint("tool_choice", grammar))
    text = f"\n<function=f>\n<parameter=p>\n{value}\n</parameter>\n</function>\n"
    for token in (CALL, *text.encode(), END_CALL):
        matcher.accept(token)
        assert matcher.error is None
    assert matcher.is_complete
    (call,) = parse_tool_calls(f"<tool_call>{text}</tool_call>", [tool]).calls
    meant = value if schema["type"] == "string" else json.loads(value)
    assert json.loads(call.arguments) == {"p": meant}


def test_any_of_the_functions_may_have_to_come(load):
    model = load()
    for other, name in (("n", "weather"), ("w", "now")):
        made = metal_gen.generate(model, "hi", tool_choice="required", ban_token=[other], seed=1, **RANDOM)
        assert [call.name for call in made.tool_calls] == [name]


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"tool_choice": "required"}, "tool_choice needs tools"),
        ({"tools": TOOLS, "tool_choice": "rain"}, "there is no function rain among the tools"),
        ({"tools": TOOLS, "tool_choice": "now", "regex": "a"}, "both set"),
        ({"tools": [{"name": "a", "parameters": {"not": {}}}], "tool_choice": "a"}, "not"),
        ({"tools": {}}, "tools must be a list of functions"),
        ({"tools": []}, "tools has no functions"),
        ({"tools": [{"name": "a b"}]}, "a function without a name"),
        ({"tools": [{"name": "a"}, {"name": "a"}]}, "names the function a twice"),
        ({"tools": [{"name": "a", "parameters": []}]}, "not a JSON Schema"),
    ],
    ids=range(9),
)
def test_what_cannot_be_used(load, settings, part):
    with pytest.raises(UsageError) as error:
        metal_gen.generate(load(b"abc"), "hi", **settings)
    assert part in error.value.message


def test_a_parameter_that_a_call_in_xml_cannot_name(load):
    tools = [{"name": "a", "parameters": {"properties": {"b>": {"type": "null"}}}}]
    with pytest.raises(UsageError, match="cannot name the parameter 'b>' of a"):
        metal_gen.generate(load(b"abc", chat_template=XML_TEMPLATE), "hi", tools=tools, tool_choice="a")
    assert metal_gen.generate(load(b"abc"), "hi", tools=tools, tool_choice="a", max_tokens=1).token_ids


def test_a_model_without_tokens_for_calls(load):
    with pytest.raises(UsageError, match="no tokens for calls"):
        metal_gen.generate(load(b"abc", has_calls=False), "hi", tool_choice="now", tools=TOOLS)


def test_a_conversation_goes_on_from_a_call(load):
    conversation = metal_gen.Conversation(load(), tool_choice="now", seed=1, **RANDOM)
    list(conversation.ask("What time is it?"))
    answer = conversation.messages[-1]
    assert answer["content"] == ""
    assert answer["tool_calls"][0]["function"] == {"name": "now", "arguments": "{}"}
    messages = [*conversation.messages, {"role": "tool", "content": "noon", "tool_call_id": "call_0"}]
    assert metal_gen.generate(conversation.model, messages, max_tokens=3).token_ids


def test_a_request_of_a_batch_has_tools():
    body = {
        "messages": [{"role": "user", "content": "hi"}],
        "tools": [{"type": "function", "function": TOOLS[1]}],
        "tool_choice": {"type": "function", "function": {"name": "now"}},
    }
    row = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    settings = parse_row(1, json.dumps(row).encode()).settings
    assert settings["tool_choice"] == "now"
    assert json.loads(settings["tools"]) == [{"type": "function", "function": {"name": "now"}}]
    row = {"prompt": "hi", "tools": TOOLS, "tool_choice": "required"}
    assert json.loads(parse_row(1, json.dumps(row).encode()).settings["tools"])[1]["function"] == TOOLS[1]
