"""Chat templates: where they are found, what they may do, and how they fail."""

import json
from pathlib import Path

import pytest

from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.errors import CheckpointError
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


def test_a_thinking_switch_that_has_no_effect_is_said_to_have_none(speaker):
    (notice,) = encode_prompt(Checkpoint(Path(speaker)), "hi", thinking=False).notices
    assert "no effect" in notice
    assert "template has none" in notice


def test_what_published_templates_use_is_there():
    source = (
        "{%- for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}"
        "{% generation %}{{ m | tojson }}{% endgeneration %}{% endfor %}{{ strftime_now('%Y') | length }}"
    )
    assert (
        ChatTemplate(source).render([{"role": "user", "content": "é<"}] * 2)
        == '{"role": "user", "content": "é<"}4'
    )


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


def test_invalid_jinja_is_an_error():
    with pytest.raises(CheckpointError, match="is not valid"):
        ChatTemplate("{% if %}")


def test_the_special_tokens_can_be_named(tmp_path):
    """As templates of distilled models do, which begin with a start token."""
    config = {
        "chat_template": "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}{{ pad_token }}",
        "bos_token": {"content": "<begin>", "special": True},
        "eos_token": "<end>",
    }
    assert read_chat_template(tmp_path, config).render(HELLO) == "<begin>Hello <b><end>"
