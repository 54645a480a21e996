"""Tests that every mistake gets one sentence, usually a hint, its own exit code, and no text."""

import os
import re
import shutil
import signal
from pathlib import Path

import pytest
from cli_process import run_cli, run_in_terminal
from damaged_checkpoints import FOLDERS, HUGE, RARE_FOLDERS, without
from on_device import cpu_only
from tiny_text_checkpoint import write_text_checkpoint

from metal_gen.checkpoint.weights import WeightFiles
from metal_gen.cli.main import main

pytest_plugins = ("fixtures_cli", "fixtures_text")

USAGE, CONFIGURATION, NOT_FOUND, BAD_CHECKPOINT, DOES_NOT_FIT = 2, 3, 4, 5, 6


@pytest.fixture
def refuse(monkeypatch, tmp_path, capfdbinary):
    """Run a command that must fail; return its sentence and its hint."""
    for name in list(os.environ):
        if name.startswith("METAL_GEN_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.chdir(tmp_path)
    handler = signal.getsignal(signal.SIGTERM)

    def run(*arguments, code):
        actual = main([str(argument) for argument in arguments])
        stdout, stderr = capfdbinary.readouterr()
        assert stdout == b""
        message, hint = sentence_and_hint(stderr.decode())
        assert actual == code, (message, hint)
        return message, hint

    yield run
    signal.signal(signal.SIGTERM, handler)


def sentence_and_hint(stderr):
    """Split the output into sentence and hint, and check that there is nothing else."""
    lines = [line for line in stderr.splitlines() if "no --model given" not in line]
    assert 1 <= len(lines) <= 2, stderr
    assert lines[0].startswith("metal-gen: ")
    hint = ""
    if len(lines) == 2:
        assert lines[1].startswith("hint: ")
        hint = lines[1].removeprefix("hint: ")
    return lines[0].removeprefix("metal-gen: "), hint


def require_hint(hint, expected):
    """Check the hint; an empty expectation means no hint."""
    if expected:
        assert expected in hint
    else:
        assert hint == ""


# Flags

LENGTHS = "must be a whole number of at least 1, or -1 for no limit"
SEEDS = "must be a whole number from 0 to 18446744073709551615, or -1 for a new one each run"
FLAGS = [
    (("--max-tokens", "0"), f"--max-tokens {LENGTHS}, not '0'", ""),
    (
        ("--max-tokens", "-3"),
        "--max-tokens must be a whole number of at least 1, or -1 for no limit, not '-3'",
        "",
    ),
    (
        ("--max-tokens", "abc"),
        "--max-tokens must be a whole number of at least 1, or -1 for no limit, not 'abc'",
        "",
    ),
    (("-n", "1.5"), f"--max-tokens {LENGTHS}, not '1.5'", ""),
    (("-n", ""), f"--max-tokens {LENGTHS}, not ''", ""),
    (("--greedy", "--top-p", "0.9"), "--greedy contradicts --top-p 0.9", "leave one of them out"),
    (("--greedy", "--top-k", "4"), "--greedy contradicts --top-k 4", "leave one of them out"),
    (("--greedy", "--temperature", "1"), "--greedy contradicts --temperature 1", "leave one of them out"),
    (("--temperature", "-1"), "--temperature must be a number of at least 0 and at most 1000, not '-1'", ""),
    (
        ("--temperature", "nan"),
        "--temperature must be a number of at least 0 and at most 1000, not 'nan'",
        "",
    ),
    (
        ("--temperature", "inf"),
        "--temperature must be a number of at least 0 and at most 1000, not 'inf'",
        "",
    ),
    (
        ("--temperature", "abc"),
        "--temperature must be a number of at least 0 and at most 1000, not 'abc'",
        "",
    ),
    (("--temperature", HUGE), "--temperature must be a number of at least 0 and at most 1000, not ", ""),
    (("--top-k", "-2"), "--top-k must be a whole number of at least 1, or 0 for all tokens, not '-2'", ""),
    (("--top-k", "1.5"), "--top-k must be a whole number of at least 1, or 0 for all tokens, not '1.5'", ""),
    (("--top-p", "0"), "--top-p must be a number above 0 and at most 1, not '0'", ""),
    (("--top-p", "1.5"), "--top-p must be a number above 0 and at most 1, not '1.5'", ""),
    (("--top-p", "nan"), "--top-p must be a number above 0 and at most 1, not 'nan'", ""),
    (("--top-p", "-0.1"), "--top-p must be a number above 0 and at most 1, not '-0.1'", ""),
    (("--seed", "-2"), f"--seed {SEEDS}, not '-2'", ""),
    (("--seed", str(2**64)), f"--seed {SEEDS}, not '{2**64}'", ""),
    (("--seed", "abc"), f"--seed {SEEDS}, not 'abc'", ""),
    (("--seed", "9" * 5000), f"--seed {SEEDS}, not ", ""),
    (("--max-seq-len", "0"), "--max-seq-len must be a whole number of at least 1, not '0'", ""),
    (("--chunk-size", "0"), "--chunk-size must be a whole number of at least 1, not '0'", ""),
    (
        ("--cache-dtype", "int8"),
        "--cache-dtype must be auto, float32, bfloat16, float16 or q8, not 'int8'",
        "",
    ),
    (("--model-dtype", "BF16"), "--model-dtype must be auto, float32, bfloat16 or float16, not 'BF16'", ""),
    (("--prompt", "x"), "--prompt is given 2 times", "put the texts together, or use --prompt-file"),
    (("--promt", "x"), "no such option: --promt", "did you mean --prompt? metal-gen generate --help"),
    (("--max-token", "x"), "no such option: --max-token", "did you mean --max-tokens? "),
    (("--temperatur", "1"), "no such option: --temperatur", "did you mean --temperature? "),
    (("-z", "1"), "no such option: -z", "metal-gen generate --help"),
    (("--quiet=no",), "--quiet takes no value", "leave it out"),
    (("-q", "-v"), "--quiet contradicts --verbose", "leave one of them out"),
    (("--seed",), "--seed needs a value", "write --seed S"),
    (("hello", "world"), "unexpected argument: world", "put it in quotes"),
]


@pytest.mark.parametrize(
    ("arguments", "message", "hint"), FLAGS, ids=[" ".join(row[0])[:40] or "none" for row in FLAGS]
)
def test_a_bad_flag(refuse, gambler, arguments, message, hint):
    actual, actual_hint = refuse("generate", "--model", gambler, "-p", "hi", *arguments, code=USAGE)
    assert message in actual
    require_hint(actual_hint, hint)


def test_an_unknown_command_gets_the_nearest_as_a_hint(refuse):
    message, hint = refuse("generat", code=USAGE)
    assert message == "there is no command generat"
    assert hint == "did you mean `metal-gen generate`? metal-gen --help lists the commands"


NOT_THERE = [
    (("generate", "--prompt-file", "nope"), "No such file or directory", "check the name: `ls`"),
    (("generate", "--prompt-file", "."), "Is a directory", "name a file in it"),
    (("batch", "nope.jsonl", "-o", "y"), "the input nope.jsonl cannot be read", "check the name: `ls`"),
    (("batch", "no/rows.jsonl", "--check"), "the input no/rows.jsonl", "there is no folder no"),
    (("generate", "-p", "x", "-o", "no/where"), "there is no folder no", "create it with: mkdir -p no"),
    (("generate", "-p", "x", "-o", "."), "it is a folder", "name a file in it"),
    (("generate", "-p", "x", "-o", ""), "the file name of the output is empty", "name a file"),
    (("generate", "--prompt-file", ""), "the file name of the prompt is empty", "name a file"),
    (("batch", "x.jsonl", "-o", ""), "the file name of the output is empty", "name a file"),
    (("bench", "-o", ""), "the file name of the output is empty", "name a file"),
    (("chat", "--load", "nope"), "cannot read the transcript nope", "metal-gen chat --save FILE"),
    (("batch", "x.jsonl", "-o", "-", "--resume"), "--resume contradicts -o -", "-o FILE"),
    (("batch", "x.jsonl", "-o", "y", "--resume", "--overwrite"), "--overwrite", "leave one of them out"),
]


@pytest.mark.parametrize(
    ("arguments", "message", "hint"), NOT_THERE, ids=[" ".join(row[0]) for row in NOT_THERE]
)
def test_a_file_that_cannot_be_used(refuse, arguments, message, hint):
    actual, actual_hint = refuse(*arguments, code=USAGE)
    assert message in actual
    assert hint in actual_hint


@pytest.mark.parametrize(
    "arguments",
    [("-o", "no/out.jsonl"), ("-o", "there"), ("-o", "new", "--summary", "no/s.json")],
    ids=" ".join,
)
def test_an_error_does_not_follow_a_notice_of_the_model(run_here, tmp_path, arguments):
    for name in ("rows.jsonl", "there"):
        (tmp_path / name).write_text('{"id": 1, "prompt": "hi"}\n')
    outcome = run_here("batch", "rows.jsonl", *arguments)
    assert outcome.code == USAGE
    assert "no --model given" not in outcome.stderr


def test_an_option_that_is_near_to_none_has_none_proposed(refuse):
    message, hint = refuse("models", "rm", "--hard", "org/name", code=USAGE)
    assert message == "no such option: --hard"
    assert hint == "metal-gen models rm --help lists the options"


@pytest.mark.parametrize("option", ["--install-completion", "--show-completion"])
def test_completion_is_for_the_shell_that_it_is_run_in(refuse, option, tmp_path):
    message, hint = refuse(option, "nope", code=USAGE)
    assert message == f"{option} takes no value: nope"
    assert hint == "it is for the shell that runs it: bash, zsh or fish"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["1e-30", "1e-300"])
def test_a_temperature_near_zero_is_greedy(gambler, tmp_path, text):
    arguments = ("generate", "--model", gambler, "-p", "hi", "--raw", "-n", "12")
    greedy = run_cli(*arguments, "--greedy", home=tmp_path)
    cold = run_cli(*arguments, "--temperature", text, home=tmp_path)
    assert (cold.code, cold.stdout) == (0, greedy.stdout)


# Prompts


def test_an_empty_pipe_is_an_empty_prompt(gambler, tmp_path):
    outcome = run_cli("generate", "--model", gambler, home=tmp_path, stdin=b"\n")
    assert (outcome.code, outcome.stdout) == (USAGE, b"")
    assert sentence_and_hint(outcome.stderr) == (
        "the prompt is empty: nothing in standard input",
        'give a text, as in metal-gen generate "..."',
    )


@pytest.mark.parametrize(
    ("arguments", "stdin", "message"),
    [
        pytest.param(("--prompt", b"a\xffb"), None, "--prompt is not UTF-8: byte 1 is 0xff", id="flag"),
        pytest.param(
            (), b"ab\xff", "the prompt on standard input is not UTF-8: byte 2 is 0xff", id="standard-input"
        ),
        pytest.param(
            ("-p", "-"), b"\xc3", "the prompt on standard input is not UTF-8: byte 0 is 0xc3", id="cut-short"
        ),
        pytest.param(("-p", "hi", "--system", b"\xff"), None, "--system is not UTF-8", id="system"),
    ],
)
def test_bytes_that_are_not_utf_8(gambler, tmp_path, arguments, stdin, message):
    outcome = run_cli("generate", "--model", gambler, *arguments, home=tmp_path, stdin=stdin)
    assert (outcome.code, outcome.stdout) == (USAGE, b"")
    assert sentence_and_hint(outcome.stderr)[0].startswith(message)


def test_a_variable_that_is_not_utf_8(gambler, tmp_path):
    variable = {"METAL_GEN_SYSTEM": os.fsdecode(b"\xff")}
    outcome = run_cli("generate", "--model", gambler, "-p", "hi", home=tmp_path, **variable)
    assert (outcome.code, outcome.stdout) == (CONFIGURATION, b"")
    assert sentence_and_hint(outcome.stderr)[0].startswith("METAL_GEN_SYSTEM")


def test_dash_with_a_closed_stdin(tmp_path):
    outcome = run_cli("generate", "-p", "-", home=tmp_path, redirect="<&-")
    assert (outcome.code, outcome.stdout) == (USAGE, b"")
    assert sentence_and_hint(outcome.stderr)[0] == "--prompt - reads standard input, which is closed"


def test_nothing_typed_at_a_terminal(gambler, tmp_path):
    outcome = run_in_terminal("generate", "--model", gambler, home=tmp_path, attached=("stdin",))
    assert (outcome.code, outcome.stdout) == (USAGE, b"")
    assert outcome.stderr.endswith('hint: give one, as in metal-gen generate "...", or pipe it in\n')


# The size of the cache


@pytest.fixture
def no_weights_are_read(monkeypatch):
    def load(self, dtype):
        raise AssertionError("weights were read")

    monkeypatch.setattr(WeightFiles, "load", load)


@pytest.mark.usefixtures("no_weights_are_read")
def test_a_prompt_longer_than_the_cache(refuse, gambler):
    message, hint = refuse(
        "generate", "--model", gambler, "--raw", "-p", "x" * 20, "--max-seq-len", 16, code=DOES_NOT_FIT
    )
    assert "prompt of 20 tokens" in message
    assert "max_seq_len is 16" in message
    assert "--max-seq-len 256" in hint, "with room for an answer"
    assert "shorten the prompt" in hint


@pytest.mark.usefixtures("no_weights_are_read")
def test_more_new_tokens_than_the_cache_has_room_for(refuse, gambler):
    arguments = ("generate", "--model", gambler, "--raw", "-p", "x" * 10, "--max-seq-len", 16)
    message, hint = refuse(*arguments, "-n", 8, code=DOES_NOT_FIT)
    assert "prompt of 10 tokens and 8 new ones" in message
    assert "17 positions" in message
    assert "--max-seq-len 17" in hint
    assert "at most 7 with --max-tokens" in hint


@pytest.mark.parametrize(
    "remedy", [("--max-seq-len", "17", "-n", "8"), ("--max-seq-len", "16", "-n", "7")], ids=" ".join
)
def test_both_remedies_work(gambler, tmp_path, remedy):
    outcome = run_cli("generate", "--model", gambler, "--raw", "-p", "x" * 10, *remedy, home=tmp_path)
    assert outcome.code == 0


@pytest.mark.usefixtures("no_weights_are_read")
def test_a_cache_beyond_memory(refuse, gambler):
    message, _ = refuse(
        "generate", "--model", gambler, "-p", "hi", "--max-seq-len", 10**15, code=DOES_NOT_FIT
    )
    assert re.search(r"[\d.,]+ TiB of memory are needed and [\d.]+ GiB are available", message)
    for part in ("weights", "cache", "working memory"):
        assert re.search(rf"{part} [\d.,]+ [TGMK]iB", message)


@pytest.mark.usefixtures("no_weights_are_read")
def test_weights_beyond_memory(refuse, gambler, monkeypatch):
    monkeypatch.setenv("METAL_GEN_MEMORY_LIMIT_BYTES", "1000")
    message, hint = refuse("generate", "--model", gambler, "-p", "hi", code=DOES_NOT_FIT)
    assert "are needed and the limit that is set is 1000 B: " in message
    assert "use a smaller or a quantized model, or raise the memory limit (--memory-limit-bytes)" in hint


@pytest.mark.usefixtures("no_weights_are_read")
def test_a_cache_beyond_memory_names_the_key_and_a_length_that_fits(refuse, gambler, monkeypatch):
    monkeypatch.setenv("METAL_GEN_MEMORY_LIMIT_BYTES", "20000000")
    arguments = ("generate", "--model", gambler, "-p", "hi", "--max-seq-len")
    _, hint = refuse(*arguments, 15000, code=DOES_NOT_FIT)
    assert "max_seq_len under [cache]" in hint
    fitting = re.search(r"--max-seq-len (\d+)", hint)[1]
    with pytest.raises(AssertionError, match="weights were read"):
        main([*arguments, fitting])


# Settings files and variables

TOML = [
    (
        "[sampling]\nseed = -2",
        f"[sampling] seed {SEEDS}, not -2",
        "",
    ),
    ("[sampling]\nseed = 18446744073709551616", "[sampling] seed must be a whole number", ""),
    ("[sampling]\nseed = 'abc'", "[sampling] seed must be a whole number", ""),
    ("[sampling]\nseed = 1.0", "[sampling] seed must be a whole number", ""),
    (
        "[sampling]\ntemperature = nan",
        "[sampling] temperature must be a number of at least 0 and at most 1000, not nan",
        "",
    ),
    (
        "[sampling]\ntemperature = '1'",
        "[sampling] temperature must be a number of at least 0 and at most 1000, not '1'",
        "",
    ),
    ("[cache]\nmax_seq_len = 0", "[cache] max_seq_len must be a whole number of at least 1, not 0", ""),
    ("[cache]\nmax_seq_len = true", "[cache] max_seq_len must be a whole number of at least 1, not True", ""),
    ("[cache]\nmax_seq_len = [1]", "[cache] max_seq_len must be a whole number of at least 1, not [1]", ""),
    ("[generation]\nraw = 1", "[generation] raw must be true or false, not 1", ""),
    ("[model]\nname = 3", "[model] name must be a text that is not empty, not 3", ""),
    (
        "[cache]\ndtype = 'int4'",
        "[cache] dtype must be auto, float32, bfloat16, float16 or q8, not 'int4'",
        "",
    ),
    ("[cache]\nmax_seqlen = 8", "[cache] has no setting max_seqlen", "did you mean max_seq_len?"),
    ("[cache]\nzzz = 8", "[cache] has no setting zzz", "there are max_seq_len, batch_size"),
    ("[cahce]\nmax_seq_len = 8", "there is no section [cahce]", "did you mean cache?"),
    (
        "[zzz]",
        "there is no section [zzz]",
        "there are cache, cpu, decode, ",
    ),
    ("[cache]\nseed = 8", "[cache] has no setting seed", "seed belongs under [sampling]"),
    ("seed = 8", "seed is outside its section", "write it under [sampling]"),
    ("cache = 8", "[cache] must be a table of settings, not 8", ""),
    ("[[cache]]\nmax_seq_len = 8", "[cache] must be a table of settings", ""),
    ("[cache]\nnum_layers = 3", "[cache] num_layers is 3 and the checkpoint has 2", "leave it out"),
    ("[cache]\nnum_kv_heads = 4", "[cache] num_kv_heads is 4 and the checkpoint has 2", "leave it out"),
    ("[cache]\nhead_dim = 64", "[cache] head_dim is 64 and the checkpoint has 32", "leave it out"),
    ("[cache\n", "is not valid TOML: ", ""),
    ("[cache]\nmax_seq_len = 1\nmax_seq_len = 2", "is not valid TOML: ", ""),
]
RARE_TOML = [
    pytest.param(f"[sampling]\ntemperature = {HUGE}", "temperature must be", "", id="huge"),
    pytest.param(f"[sampling]\nseed = {'9' * 5000}", "config.toml", "", id="digits"),
    pytest.param(f"[sampling]\nseed = {'[' * 5000}", "config.toml", "", id="deep"),
]


@pytest.mark.parametrize("own", [False, True], ids=["--config", "own"])
@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [*(pytest.param(*row, id=row[0].replace("\n", " ")[:40]) for row in TOML), *RARE_TOML],
)
def test_a_bad_settings_file(refuse, gambler, tmp_path, text, message, hint, own):
    path = tmp_path / ("config/metal-gen/config.toml" if own else "settings/config.toml")
    path.parent.mkdir(parents=True)
    path.write_text(text)
    arguments = () if own else ("--config", path)
    actual, actual_hint = refuse("generate", "--model", gambler, "-p", "hi", *arguments, code=CONFIGURATION)
    assert str(path) in actual
    assert message in actual
    require_hint(actual_hint, hint)


def test_a_settings_file_that_is_not_there(refuse, tmp_path):
    message, hint = refuse("generate", "-p", "hi", "--config", "none.toml", code=CONFIGURATION)
    assert message == "there is no settings file none.toml"
    assert hint == "`metal-gen config init none.toml` writes it"
    assert run_cli("config", "init", "none.toml", home=tmp_path).code == 0
    assert (tmp_path / "none.toml").exists()


def test_a_settings_file_that_is_a_folder(refuse, tmp_path):
    message, hint = refuse("generate", "-p", "hi", "--config", tmp_path, code=CONFIGURATION)
    assert message == f"the settings file is a folder: {tmp_path}"
    assert hint == "name the TOML file in it"


def test_a_settings_file_that_is_not_utf_8(refuse, tmp_path):
    (tmp_path / "latin.toml").write_bytes(b"[generation]\nsystem = '\xe9'")
    message, _ = refuse("generate", "-p", "hi", "--config", "latin.toml", code=CONFIGURATION)
    assert message == "latin.toml is not UTF-8: byte 23 is 0xe9"


def test_a_name_that_no_file_can_have(refuse):
    message, _ = refuse("generate", "-p", "hi", "--config", "x" * 5000, code=CONFIGURATION)
    assert message.startswith("cannot read the settings file ")


def test_a_settings_folder_that_no_file_can_have(refuse, monkeypatch, gambler):
    monkeypatch.setenv("XDG_CONFIG_HOME", "x" * 5000)
    message, _ = refuse("generate", "--model", gambler, "-p", "hi", code=CONFIGURATION)
    assert "XDG_CONFIG_HOME" in message or "x" * 500 in message


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("SEED", "-2", f"METAL_GEN_SEED {SEEDS}, not '-2'"),
        ("SEED", str(2**64), f"METAL_GEN_SEED {SEEDS}, not '{2**64}'"),
        ("SEED", "abc", f"METAL_GEN_SEED {SEEDS}, not 'abc'"),
        ("MAX_SEQ_LEN", "0", "METAL_GEN_MAX_SEQ_LEN must be a whole number of at least 1, not '0'"),
        (
            "TEMPERATURE",
            "inf",
            "METAL_GEN_TEMPERATURE must be a number of at least 0 and at most 1000, not 'inf'",
        ),
        ("RAW", "maybe", "METAL_GEN_RAW must be true or false, not 'maybe'"),
        ("CACHE_DTYPE", "x", "METAL_GEN_CACHE_DTYPE must be auto, float32, bfloat16, float16 or q8, not 'x'"),
        ("NUM_LAYERS", "3", "METAL_GEN_NUM_LAYERS: [cache] num_layers is 3 and the checkpoint has 2"),
    ],
)
def test_a_bad_variable(refuse, gambler, monkeypatch, variable, value, message):
    monkeypatch.setenv(f"METAL_GEN_{variable}", value)
    assert message in refuse("generate", "--model", gambler, "-p", "hi", code=CONFIGURATION)[0]


def test_the_last_of_two_settings_files_counts(refuse, tmp_path):
    (tmp_path / "good.toml").write_text("")
    (tmp_path / "bad.toml").write_text("[cache]\nmax_seq_len = 0")
    message, _ = refuse(
        "generate", "-p", "hi", "--config", "good.toml", "--config", "bad.toml", code=CONFIGURATION
    )
    assert message.startswith("bad.toml: ")


# The location of the model


def test_a_model_folder_that_is_not_there(refuse):
    message, hint = refuse("generate", "-p", "hi", "--model", "./none", code=NOT_FOUND)
    assert message == "no such folder: ./none"
    assert hint


def test_a_model_that_is_a_file(refuse, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    message, hint = refuse("generate", "-p", "hi", "--model", "./model.safetensors", code=NOT_FOUND)
    assert message == "model is a file, not a folder: ./model.safetensors"
    assert "give the folder" in hint


def test_a_model_that_is_not_in_the_cache(tmp_path):
    outcome = run_cli("generate", "-p", "hi", "--model", "nobody/nothing", home=tmp_path)
    assert (outcome.code, outcome.stdout) == (NOT_FOUND, b"")
    message, hint = sentence_and_hint(outcome.stderr)
    assert "nobody/nothing" in message
    assert "HF_HUB_OFFLINE" in hint


@pytest.mark.parametrize("by_file", [False, True], ids=["flag", "file"])
def test_an_empty_model_name(refuse, tmp_path, by_file):
    (tmp_path / "empty.toml").write_text("[model]\nname = ''")
    arguments = ("--config", "empty.toml") if by_file else ("--model", "")
    refuse("generate", "-p", "hi", "-n", 1, *arguments, code=CONFIGURATION if by_file else USAGE)


# The contents of its folder


@pytest.fixture
def damaged(gambler, tmp_path):
    """Return a copy of a checkpoint to damage."""
    return Path(shutil.copytree(gambler, tmp_path / "damaged"))


@pytest.mark.parametrize(("damage", "message", "hint"), FOLDERS.values(), ids=FOLDERS.keys())
def test_a_damaged_checkpoint(refuse, damaged, damage, message, hint):
    damage(damaged)
    actual, actual_hint = refuse("generate", "-p", "hi", "--model", damaged, "-n", 2, code=BAD_CHECKPOINT)
    assert message in actual
    require_hint(actual_hint, hint)


@pytest.mark.parametrize(
    ("damage", "message"),
    RARE_FOLDERS.values(),
    ids=RARE_FOLDERS.keys(),
)
def test_a_checkpoint_damaged_in_a_rare_way(refuse, damaged, damage, message):
    damage(damaged)
    assert message in refuse("generate", "-p", "hi", "--model", damaged, "-n", 2, code=BAD_CHECKPOINT)[0]


def test_a_checkpoint_that_is_not_damaged_passes(damaged, tmp_path):
    """The undamaged checkpoint loads, so the damage in the tables above causes the errors."""
    outcome = run_cli("generate", "-p", "hi", "--model", str(damaged), "-n", "2", home=tmp_path)
    assert outcome.code == 0


def test_a_message_of_a_template_cannot_control_the_terminal(refuse, tmp_path):
    folder = write_text_checkpoint(tmp_path / "loud", chat_template=r"{{ raise_exception('\x1b[31m') }}")
    message, _ = refuse("generate", "-p", "hi", "--model", folder, code=BAD_CHECKPOINT)
    assert message.endswith("\u241b[31m")


def test_an_error_is_one_sentence_in_a_process_of_its_own(damaged, tmp_path):
    without("tokenizer.json")(damaged)
    outcome = run_cli("generate", "-p", "hi", "--model", "./damaged", "-q", home=tmp_path)
    assert (outcome.code, outcome.stdout) == (BAD_CHECKPOINT, b"")
    assert sentence_and_hint(outcome.stderr)[0] == "damaged has no tokenizer.json"


@cpu_only
def test_compiling_for_a_cpu_without_a_compiler(refuse, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    message, hint = refuse("generate", "-p", "hi", "--compile", "on", code=CONFIGURATION)
    assert "g++, which is not installed" in message
    assert "leave it at auto" in hint
