"""Tests chat templates: where they are found, what they may do, and how they fail."""

import json
from datetime import datetime
from pathlib import Path

import pytest
from tiny_text_checkpoint import write_text_checkpoint

from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.errors import CheckpointError, UsageError
from metal_gen.generation.prompt import encode_prompt
from metal_gen.text.chat_template import ChatTemplate, read_chat_template

pytest_plugins = ("fixtures_text",)

HELLO = [{"role": "user", "content": "Hello <b>"}]
SIMPLE = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{{ '>' if add_generation_prompt }}"


def test_it_renders_messages_without_escaping():
    assert ChatTemplate(SIMPLE).render(HELLO) == "[user]Hello <b>>"


def test_the_jinja_file_comes_first(tmp_path):
    (tmp_path / "chat_template.jinja").write_text("file")
    assert read_chat_template(tmp_path, {"chat_template": "config"}).render(HELLO) == "file"


def test_tokenizer_config_holds_one_or_several(tmp_path):
    assert read_chat_template(tmp_path, {"chat_template": "one"}).render(HELLO) == "one"
    several = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "plain"}]
    assert read_chat_template(tmp_path, {"chat_template": several}).render(HELLO) == "plain"
    assert read_chat_template(tmp_path, {}) is None


def test_the_old_json_file_is_read_last(tmp_path):
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": "old"}))
    assert read_chat_template(tmp_path, {}).render(HELLO) == "old"
    assert read_chat_template(tmp_path, {"chat_template": "config"}).render(HELLO) == "config"


def test_the_thinking_switch_is_set_only_when_asked():
    template = ChatTemplate(
        "{% if enable_thinking is defined %}{{ enable_thinking }}{% else %}unset{% endif %}"
    )
    assert template.has_thinking_switch
    assert [template.render(HELLO, thinking=value) for value in (None, True, False)] == [
        "unset",
        "True",
        "False",
    ]
    assert not ChatTemplate(SIMPLE).has_thinking_switch


def test_a_missing_thinking_switch_gives_a_notice(speaker):
    (notice,) = encode_prompt(Checkpoint(Path(speaker)), "hi", thinking=False).notices
    assert "no effect" in notice
    assert "template has none" in notice


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{{ messages[0].content }}{# enable_thinking #}", "template has none"),
        ("{% if enable_thinking and tools %}think{% endif %}hi", "the same prompt either way"),
        ("{% if enable_thinking %}{{ raise_exception('cannot') }}{% endif %}hi", None),
        ("{{ enable_thinking }}", None),
    ],
)
def test_a_switch_without_a_difference_gives_a_notice(tmp_path, source, words):
    checkpoint = Checkpoint(write_text_checkpoint(tmp_path, chat_template=source))
    notices = encode_prompt(checkpoint, "hi", thinking=False).notices
    assert [words in notice for notice in notices] == ([] if words is None else [True])


def test_features_of_published_templates_work():
    source = (
        "{%- for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}"
        "{% generation %}{{ m | tojson }}{% endgeneration %}{% endfor %}{{ strftime_now('%Y') | length }}"
    )
    assert (
        ChatTemplate(source).render([{"role": "user", "content": "é<"}] * 2)
        == '{"role": "user", "content": "é<"}4'
    )


def test_every_template_gets_the_usual_variables():
    """Tools and documents are None, not undefined."""
    source = (
        "{% if tools is not none %}TOOLS{% endif %}{{ tools is defined }} {{ documents is none }} {{ tools }}"
    )
    assert ChatTemplate(source).render(HELLO) == "True True None"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("", '{"b": "é<", "a": 1}'),
        ("ensure_ascii=False, separators=(',', ':'), sort_keys=true", '{"a":1,"b":"é<"}'),
        ("true", '{"b": "\\u00e9<", "a": 1}'),
        ("indent=1", '{\n "b": "é<",\n "a": 1\n}'),
        ("indent='-'", '{\n-"b": "é<",\n-"a": 1\n}'),
    ],
)
def test_json_is_written_as_by_python(arguments, text):
    assert ChatTemplate("{{ {'b': 'é<', 'a': 1} | tojson(" + arguments + ") }}").render(HELLO) == text


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content", "thinking"])
@pytest.mark.parametrize("name", ["reasoning", "reasoning_content", "thinking"])
def test_reasoning_has_several_names(field, name):
    said = [{"role": "assistant", "content": "b", name: "a"}]
    source = "{% for m in messages %}{{ m." + field + " }}{% endfor %}"
    assert ChatTemplate(source).render(said) == "a"
    assert said[0].keys() == {"role", "content", name}


def test_a_message_without_reasoning_gets_none():
    assert ChatTemplate("{{ messages[0] | tojson }}").render(HELLO) == json.dumps(HELLO[0])


def test_variables_reach_the_template_and_unused_ones_give_a_notice(tmp_path):
    source = "{{ messages[0].content }}{{ day }}{% if n is defined %}{{ n + 1 }}{% endif %}{# other #}"
    checkpoint = Checkpoint(write_text_checkpoint(tmp_path, chat_template=source))
    prompt = encode_prompt(checkpoint, "hi ", template_args=[("day", "May"), ("n", 4)])
    assert bytes(prompt.ids) == b"hi May5"
    assert prompt.notices == ()
    (notice,) = encode_prompt(checkpoint, "hi", template_args=[("other", 1)]).notices
    assert "template_arg other has no effect" in notice
    assert any(
        "template_arg" in note
        for note in encode_prompt(checkpoint, "hi", raw=True, template_args=[("n", 1)]).notices
    )


def test_the_thinking_switch_is_set_in_one_place(tmp_path):
    checkpoint = Checkpoint(write_text_checkpoint(tmp_path, chat_template="{{ enable_thinking }}"))
    prompt = encode_prompt(checkpoint, "hi", template_args=[("enable_thinking", False)])
    assert bytes(prompt.ids) == b"False"
    with pytest.raises(UsageError, match="both"):
        encode_prompt(checkpoint, "hi", thinking=True, template_args=[("enable_thinking", False)])


def test_blocks_leave_no_blank_lines():
    assert ChatTemplate("a\n  {% if true %}\nb\n  {% endif %}\nc").render(HELLO) == "a\nb\nc"


@pytest.mark.parametrize(
    "source",
    [
        "{{ raise_exception('no system role') }}",
        "{{ messages[9].content }}",
        "{{ 1 / 0 }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{% set _ = messages.append(1) %}",
        "{{ messages.clear() }}",
    ],
)
def test_a_template_that_fails_or_reaches_out_is_an_error(source):
    with pytest.raises(CheckpointError) as caught:
        ChatTemplate(source).render(HELLO)
    assert "--raw" in caught.value.hint


def test_the_template_s_own_words_reach_the_user():
    with pytest.raises(CheckpointError, match="no system role"):
        ChatTemplate("{{ raise_exception('no system role') }}").render(HELLO)


@pytest.mark.parametrize(
    ("words", "shown"),
    [("'a' * 10**6", "aaa..."), (r"'\ud800'", ": ?"), ("[messages]", "Hello"), ("''", "TemplateError")],
)
def test_a_template_s_own_words_are_short_and_can_be_shown(words, shown):
    with pytest.raises(CheckpointError) as caught:
        ChatTemplate("{{ raise_exception(" + words + ") }}").render(HELLO)
    caught.value.message.encode()
    assert shown in caught.value.message
    assert len(caught.value.message) < 400


def test_invalid_jinja_is_an_error():
    with pytest.raises(CheckpointError, match="is not valid"):
        ChatTemplate("{% if %}")


def test_the_special_tokens_can_be_named(tmp_path):
    """Templates of distilled models begin with a start token."""
    config = {
        "chat_template": "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}{{ pad_token }}",
        "bos_token": {"content": "<begin>", "special": True},
        "eos_token": "<end>",
    }
    assert read_chat_template(tmp_path, config).render(HELLO) == "<begin>Hello <b><end>"


@pytest.mark.parametrize("given", [[{"name": [], "template": "x"}], [5], [{"name": "x"}], None])
def test_without_a_default_there_is_no_template(tmp_path, given):
    assert read_chat_template(tmp_path, {"chat_template": given}) is None


@pytest.mark.parametrize("given", [{"name": "default"}, 5, [{"name": "default", "template": 5}]])
def test_a_template_that_is_not_text_is_refused(tmp_path, given):
    with pytest.raises(CheckpointError, match="not a text"):
        read_chat_template(tmp_path, {"chat_template": given})


def test_a_byte_order_mark_is_not_part_of_a_template(tmp_path):
    (tmp_path / "chat_template.jinja").write_bytes(b"\xef\xbb\xbfa")
    assert read_chat_template(tmp_path, {}).render(HELLO) == "a"


def test_the_time_can_be_fixed():
    template = ChatTemplate("{{ strftime_now('%d %B %Y') }}")
    assert template.tells_time
    assert not ChatTemplate(SIMPLE).tells_time
    template.moment = datetime(2001, 2, 3)
    assert template.render(HELLO) == "03 February 2001"


@pytest.mark.parametrize("source", ["{{ none[:1] }}", "{{ 5[1:] }}", "{{ 'a'() }}", "{{ true[:] }}"])
def test_warnings_of_pythons_compiler_are_hidden(source, recwarn):
    ChatTemplate(source)
    assert not recwarn.list
