"""The plugin for `llm`, by way of `llm` itself."""

import json
import subprocess
import sys

import pytest
from cli_process import clean_environment
from click.testing import CliRunner
from tiny_text_checkpoint import CHATML, replace_letter, write_text_checkpoint

from metal_gen.generation.text_generation import generate, load, stream_generate

TEMPLATE = "{% for tool in tools or [] %}{{ tool.function.name }};{% endfor %}" + CHATML


# These import when they are needed: `llm` takes a second to load.


@pytest.fixture
def llm():
    return pytest.importorskip("llm")


@pytest.fixture
def llm_plugin(llm):
    from metal_gen import llm_plugin

    return llm_plugin


@pytest.fixture
def run(llm_plugin, tmp_path, monkeypatch):
    """Runs `llm` with the plugin, with nothing of the user's own."""
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path / "llm"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(sys, "_called_from_test", True, raising=False)
    from llm.cli import cli
    from llm.plugins import pm

    if not pm.has_plugin("metal-gen"):
        pm.register(llm_plugin, "metal-gen")

    def run(*arguments, given=None):
        return CliRunner().invoke(cli, arguments, input=given)

    return run


@pytest.fixture
def bundled(llm_plugin):
    return llm_plugin.MetalGenModel(llm_plugin.BUNDLED)


def test_a_prompt_is_answered_as_the_library_answers_it(run):
    result = run(
        "-m",
        "metal-gen/bundled",
        "-o",
        "temperature",
        "0.8",
        "-o",
        "seed",
        "3",
        "--no-log",
        "-u",
        "A story",
        "-o",
        "max_tokens",
        "12",
    )
    expected = generate(load(), "A story", temperature=0.8, seed=3, max_tokens=12)
    assert result.exit_code == 0
    assert expected.text in result.output
    assert f"Token usage: {expected.statistics.prompt_tokens} input, 12 output" in result.output


@pytest.mark.quick
def test_a_last_token_of_thinking_and_answer_is_two_events(llm, llm_plugin, run, tmp_path):
    write_text_checkpoint(tmp_path, says=b"abZ", has_tags=False, chat_template=CHATML + "{{ '<think>' }}")
    replace_letter(tmp_path, "Z", "c</think>D")
    pieces = stream_generate(load(tmp_path, max_seq_len=256), "hi", max_tokens=3)
    response = llm.get_model("metal-gen/bundled").prompt("hi")
    events = list(llm_plugin._events(pieces, response, has_tools=False))
    assert [(event.type, event.chunk) for event in events] == [
        *(("reasoning", letter) for letter in "abc"),
        ("text", "D"),
    ]


@pytest.mark.quick
def test_models_of_the_cache_and_of_the_settings_are_offered(llm_plugin, run, monkeypatch):
    monkeypatch.setattr(llm_plugin, "cached_references", lambda: ["org/cached"])
    monkeypatch.setenv("METAL_GEN_MODEL", "org/chosen")
    listed = run("models", "-q", "metal-gen").output
    assert [line.partition(": ")[2] for line in listed.splitlines()] == [
        "metal-gen/bundled",
        "metal-gen/org/cached",
        "metal-gen/org/chosen (aliases: metal-gen)",
    ]


@pytest.mark.quick
def test_the_bundled_model_has_the_short_name_where_no_model_is_set(llm_plugin, run, monkeypatch):
    monkeypatch.setattr(llm_plugin, "cached_references", list)
    monkeypatch.delenv("METAL_GEN_MODEL", raising=False)
    assert "metal-gen/bundled (aliases: metal-gen)" in run("models", "-q", "metal-gen").output


@pytest.mark.quick
def test_every_option_is_shown_with_its_help(llm_plugin, run):
    shown = run("models", "-m", "metal-gen/bundled", "--options").output
    for name in llm_plugin.OPTIONS:
        assert f"{name}: " in shown


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("temperature", "hot", "--temperature must be a number"),
        ("top_p", "7", "--top-p must be a number"),
        ("max_seq_len", "0", "--max-seq-len must be a whole number"),
        ("nothing", "1", "nothing"),
    ],
)
def test_an_option_that_cannot_be_used_is_a_sentence(run, monkeypatch, option, value, message):
    monkeypatch.delattr(sys, "_called_from_test")
    monkeypatch.setenv("LLM_LOAD_PLUGINS", "")
    result = run("-m", "metal-gen/bundled", "--no-log", "-o", option, value, "hi")
    assert result.exit_code == 1
    assert message in result.output
    assert "Traceback" not in result.output


@pytest.mark.quick
def test_a_model_that_is_not_there_is_a_sentence(llm, llm_plugin, run, tmp_path):
    model = llm_plugin.MetalGenModel(str(tmp_path / "none"))
    with pytest.raises(llm.ModelError, match="none") as caught:
        model.prompt("hi").text()
    assert "hint: " in str(caught.value)


@pytest.mark.quick
def test_a_conversation_computes_only_what_is_new(run, bundled):
    talk = bundled.conversation()
    first = talk.prompt("Hello", max_tokens=6)
    first.text()
    talk.prompt("And then?", max_tokens=6).text()
    said = [(message["role"], message["content"]) for message in bundled._loaded[1].messages]
    assert [role for role, _ in said] == ["user", "assistant", "user", "assistant"]
    assert said[1][1] == first.text()


@pytest.mark.quick
def test_an_option_of_one_answer_is_not_the_next_ones(run, bundled, monkeypatch):
    monkeypatch.setenv("METAL_GEN_TEMPERATURE", "0")
    plain = bundled.prompt("A story", max_tokens=8).text()
    bundled.prompt("A story", max_tokens=3, temperature=1.5, seed=1).text()
    assert bundled.prompt("A story", max_tokens=8).text() == plain


@pytest.mark.quick
def test_the_model_stays_loaded_unless_its_settings_change(run, bundled):
    bundled.prompt("A story", max_tokens=2).text()
    before = bundled._loaded[1]
    bundled.prompt("Another", max_tokens=2, temperature=1).text()
    assert bundled._loaded[1] is before
    bundled.prompt("Another", max_tokens=2, max_seq_len=64).text()
    assert bundled._loaded[1].capacity == 64


def test_a_schema_constrains_the_answer(run):
    pytest.importorskip("llguidance")
    options = ["-o", "temperature", "1", "-o", "seed", "3", "--no-log", "-o", "thinking", "off"]
    result = run("-m", "metal-gen/bundled", *options, "--schema", "name, legs int", "Describe a fox.")
    assert result.exit_code == 0
    assert set(json.loads(result.output)) == {"name", "legs"}


def test_calls_of_tools_are_handed_on(llm, llm_plugin, run, tmp_path):
    """A call that has to come: the weights are random."""
    pytest.importorskip("llguidance")
    folder = write_text_checkpoint(tmp_path / "model", has_calls=True, chat_template=TEMPLATE)

    def now(zone: bool) -> str:
        """Tell the time."""
        return "4"

    model = llm_plugin.MetalGenModel(str(folder))
    options = {"max_tokens": 190, "temperature": 1.5, "seed": 1, "tool_choice": "required"}
    response = model.prompt("hi", tools=[llm.Tool.function(now)], **options)
    (call,) = response.tool_calls()
    assert response.text() == ""
    assert call.name == "now"
    assert isinstance(call.arguments["zone"], bool)
    assert model.prompt("hi", max_tokens=2, seed=1).tool_calls() == []


@pytest.mark.quick
def test_calls_and_results_become_messages(llm_plugin):
    from llm.parts import Message, ReasoningPart, TextPart, ToolCallPart, ToolResultPart

    made = llm_plugin.messages_from(
        [
            Message(role="user", parts=[TextPart(text="a"), TextPart(text="b")]),
            Message(
                role="assistant", parts=[ReasoningPart(text="hm"), ToolCallPart(name="f", arguments={"x": 1})]
            ),
            Message(role="tool", parts=[ToolResultPart(name="f", output="4")]),
        ]
    )
    call = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
    assert made == [
        {"role": "user", "content": "ab"},
        {"role": "assistant", "content": "", "reasoning_content": "hm", "tool_calls": [call]},
        {"role": "tool", "name": "f", "content": "4"},
    ]


def test_registering_loads_neither_mlx_nor_the_hubs_client(tmp_path):
    code = (
        "import sys, metal_gen.llm_plugin as plugin; plugin.register_models(lambda model, aliases: None);"
        "print([name for name in ('mlx', 'huggingface_hub.hf_api', 'tokenizers', 'typer')"
        " if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=clean_environment(tmp_path),
        check=True,
    )
    assert result.stdout.strip() == "[]"
