"""Tests the prompt options on the command line."""

import json

import pytest
from tiny_text_checkpoint import write_text_checkpoint

pytest_plugins = ("fixtures_cli",)

QUOTING = "{{ raise_exception(day ~ (n + 1) ~ messages[-1].content) }}"
BAD_CHECKPOINT = 5


@pytest.fixture
def model(tmp_path):
    """A model that answers `abc`; with a day, its template raises an error that quotes the prompt."""
    source = "{% if day is defined %}" + QUOTING + "{% endif %}{{ messages[-1].content }}"
    write_text_checkpoint(tmp_path / "model", says=b"abc", chat_template=source)
    return "./model"


def test_a_prefill_comes_last_and_is_not_part_of_the_text(model, run_here):
    arguments = ("generate", "--model", model, "-p", "hi", "--json", "-q")
    outcome = run_here(*arguments, "--prefill", r"Sure:\n", "--escape")
    plain = run_here(*arguments)
    said, usual = json.loads(outcome.stdout), json.loads(plain.stdout)
    assert said["text"] == usual["text"] == "abc"
    assert said["usage"]["prompt_tokens"] == usual["usage"]["prompt_tokens"] + len("Sure:\n")


def test_the_variables_of_a_template_come_from_options_the_environment_and_files(
    model, run_here, tmp_path, monkeypatch
):
    (tmp_path / "c.toml").write_text('[generation]\ntemplate_arg = { day = "May", n = 4 }\n')
    flags = ("--template-arg", "day=May", "--template-arg", "n=4")
    for arguments, variable in ((flags, ""), (("--config", "c.toml"), ""), ((), '{"day": "May", "n": 4}')):
        monkeypatch.setenv("METAL_GEN_TEMPLATE_ARG", variable)
        outcome = run_here("generate", "--model", model, "-p", "hi", *arguments)
        assert outcome.code == BAD_CHECKPOINT
        assert "refused the messages: May5hi" in outcome.stderr
