"""Tests sampling and stopping options: out of range wherever they can be set, and in effect."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cli_process import clean_environment, run_cli, run_in_terminal
from tiny_text_checkpoint import SAID, SHOWN, TEXT_VOCAB, write_text_checkpoint

import metal_gen
from metal_gen.checkpoint.weights import WeightFiles
from metal_gen.cli.terminal.console import Console
from metal_gen.config.checks import Flag
from metal_gen.config.ranges import LOGIT_BIAS
from metal_gen.config.settings import SETTINGS
from metal_gen.errors import UsageError

pytest_plugins = ("fixtures_text", "fixtures_cli")

USAGE, CONFIGURATION = 2, 3
LETTERS = "abcdefgh"
TOO_MANY = [f"{number:04}" for number in range(4097)]

MIN_P = "must be a number of at least 0 and at most 1"
REPETITION_PENALTY = "must be a number of at least 0.01 and at most 100"
A_WINDOW = "must be a whole number of at least 1, or -1 for the whole text"
AT_LEAST_0 = "must be a whole number of at least 0"
PENALTY = "must be a number of at least -2 and at most 2"
TEXTS = "must be a list of at most 4,096 texts, none of them empty"
BIAS = "a number of at least -10000 and at most 10000"
BIASES = f"must be a table of tokens, each with {BIAS}"
ONE_BIAS = f"must be TOKEN=BIAS, with {BIAS}"
SAMPLES = "must be a whole number from 1 to 10000"
LOGPROBS = "must be a whole number from 0 to 100"
BOOL = "must be true or false"

# Name, range, bad texts on the command line, bad values in TOML or the library; texts are bad variables too.
NUMBERS = [
    ("min_p", MIN_P, ("-0.1", "1.1", "nan", "inf", "x", "0,5"), (-0.1, 1.1, "0.5", True, [0.5])),
    ("repetition_penalty", REPETITION_PENALTY, ("0", "-1", "nan", "inf", "x"), (0, -1.0, "1", False)),
    ("repetition_window", A_WINDOW, ("0", "-2", "1.5", "x"), (0, -2, 1.5, "1", True)),
    ("presence_penalty", PENALTY, ("-2.1", "2.1", "nan", "inf", "x"), (-2.1, 2.1, "0", True)),
    ("frequency_penalty", PENALTY, ("-2.1", "2.1", "nan", "-inf", "x"), (-2.1, 2.1, "0", True)),
    ("samples", SAMPLES, ("0", "-1", "10001", "1.5", "x"), (0, -1, 10_001, 1.0, "1", True)),
    ("logprobs", LOGPROBS, ("-1", "101", "1.5", "x"), (-1, 101, 1.0, "1", True)),
    ("min_tokens", AT_LEAST_0, ("-1", "1.5", "x"), (-1, 1.5, "1", True)),
]
TEXTUAL = [(name, bad) for name, _, texts, _ in NUMBERS for bad in texts]
TYPED = [
    *((name, phrase, bad) for name, phrase, _, values in NUMBERS for bad in values),
    *(
        (name, TEXTS, bad)
        for name in ("stop", "stop_token", "ban_token")
        for bad in ([""], ["a", ""], "a", [1], 1, [["a"]], TOO_MANY)
    ),
    *(
        ("logit_bias", BIASES, bad)
        for bad in ({"a": 10_001}, {"a": "1"}, {"a": True}, {"a": [1]}, {"": 1}, "a=1", ["a"], 1)
    ),
    *(("ignore_eos", BOOL, bad) for bad in (1, "true", [True])),
]
RANGES = {name: phrase for name, phrase, *_ in NUMBERS}


def brief(value):
    return str(value)[:24]


def toml_value(value):
    if isinstance(value, dict):
        return (
            "{ " + ", ".join(f"{json.dumps(key)} = {toml_value(item)}" for key, item in value.items()) + " }"
        )
    return json.dumps(value)


def place(name):
    info = SETTINGS[name]
    return f"[{info.section}] {info.key}"


@pytest.fixture
def run(run_here):
    """Generate with a model."""
    return lambda model, *arguments: run_here("generate", "--model", model, *arguments)


@pytest.fixture
def refuse(monkeypatch, run, gambler):
    """Run a command that must fail before weights are read; return its sentence and its hint."""

    def load(self, dtype):
        raise AssertionError("weights were read")

    monkeypatch.setattr(WeightFiles, "load", load)

    def refuse(*arguments, code):
        outcome = run(gambler, "-p", "hi", *arguments)
        assert outcome.stdout == b""
        lines = outcome.stderr.splitlines()
        assert outcome.code == code, lines
        assert lines[0].startswith("metal-gen: ")
        assert len(lines) == 1 or (len(lines) == 2 and lines[1].startswith("hint: "))
        return lines[0].removeprefix("metal-gen: "), "".join(lines[1:]).removeprefix("hint: ")

    return refuse


@pytest.fixture
def refuse_file(refuse, tmp_path):
    """Do the same with a line in a settings file."""

    def run(name, value):
        path = tmp_path / "settings.toml"
        path.write_text(f"[{SETTINGS[name].section}]\n{SETTINGS[name].key} = {toml_value(value)}\n")
        message, hint = refuse("--config", str(path), code=CONFIGURATION)
        assert message.startswith(str(path))
        return message.removeprefix(f"{path}: "), hint

    return run


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    """A model that says `abcdefgh` and stops."""
    return str(write_text_checkpoint(tmp_path_factory.mktemp("letters"), says=LETTERS.encode()))


@pytest.fixture(scope="module")
def endless(tmp_path_factory):
    """A model that repeats `ab`."""
    folder = tmp_path_factory.mktemp("endless")
    return str(write_text_checkpoint(folder, says=b"ab", forever=True, chat_template=None))


@pytest.fixture(scope="module")
def loaded(letters):
    return metal_gen.load(letters, max_seq_len=64)


@pytest.fixture
def say(run, letters, monkeypatch):
    """Run a command that succeeds; its text has no newline added."""

    def say(*arguments, model=letters, **variables):
        with monkeypatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            exact = () if "--json" in arguments else ("--no-newline",)
            outcome = run(model, "-p", "x", *exact, *arguments)
        assert outcome.code == 0, outcome.stderr
        return outcome

    return say


# Out of range: numbers, texts and tables


@pytest.mark.parametrize(("name", "bad"), TEXTUAL)
def test_a_flag_out_of_range(refuse, name, bad):
    message, _ = refuse(SETTINGS[name].flag, bad, code=USAGE)
    assert message == f"{SETTINGS[name].flag} {RANGES[name]}, not {bad!r}"


@pytest.mark.parametrize(("name", "bad"), TEXTUAL)
def test_a_variable_out_of_range(refuse, monkeypatch, name, bad):
    monkeypatch.setenv(SETTINGS[name].variable, bad)
    message, _ = refuse(code=CONFIGURATION)
    assert message == f"{SETTINGS[name].variable} {RANGES[name]}, not {bad!r}"


@pytest.mark.parametrize(("name", "phrase", "bad"), TYPED, ids=brief)
def test_a_key_out_of_range(refuse_file, name, phrase, bad):
    assert refuse_file(name, bad)[0].startswith(f"{place(name)} {phrase}")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["min_p", "repetition_penalty", "presence_penalty", "frequency_penalty"])
def test_an_argument_that_is_not_a_finite_number(loaded, name, bad):
    with pytest.raises(UsageError, match=re.escape(f"{name} {RANGES[name]}, not {bad}")):
        metal_gen.stream_generate(loaded, "x", **{name: bad})
    with pytest.raises(UsageError, match=re.escape(f"{name} {RANGES[name]}, not {bad}")):
        metal_gen.SamplingStrategy(**{name: bad})


@pytest.mark.parametrize(("name", "phrase", "bad"), TYPED, ids=brief)
def test_an_argument_out_of_range(loaded, monkeypatch, name, phrase, bad):
    monkeypatch.setattr(loaded.decoder, "prefill", None)
    with pytest.raises(UsageError) as caught:
        metal_gen.stream_generate(loaded, "x", **{name: bad})
    assert caught.value.message.startswith(f"{name} {phrase}")


@pytest.mark.parametrize(("name", "phrase", "bad"), TYPED, ids=brief)
def test_an_argument_of_load_out_of_range(letters, monkeypatch, name, phrase, bad):
    monkeypatch.setattr(WeightFiles, "load", None)
    with pytest.raises(UsageError) as caught:
        metal_gen.load(letters, **{name: bad})
    assert caught.value.message.startswith(f"{name} {phrase}")


STRATEGY = [row for row in TYPED if row[0] in metal_gen.SamplingStrategy.__dataclass_fields__]


@pytest.mark.parametrize(
    ("name", "phrase", "bad"), [row for row in STRATEGY if row[0] != "logit_bias"], ids=brief
)
def test_a_strategy_out_of_range(name, phrase, bad):
    with pytest.raises(UsageError) as caught:
        metal_gen.SamplingStrategy(**{name: bad})
    assert caught.value.message.startswith(f"{name} {phrase}")


@pytest.mark.parametrize(
    "bad",
    [
        {"a": 1.0},
        {-1: 1.0},
        {1.0: 1.0},
        {1: 10_001},
        {1: float("nan")},
        {1: float("inf")},
        {1: "1"},
        {1: None},
    ],
    ids=str,
)
def test_a_bias_of_a_strategy_out_of_range(bad):
    with pytest.raises(UsageError, match=r"^logit_bias .*must be a "):
        metal_gen.SamplingStrategy(logit_bias=bad)


@pytest.mark.parametrize("bad", [5, None, [1, 2]], ids=str)
def test_a_bias_of_a_strategy_that_is_not_a_table(bad):
    with pytest.raises(UsageError, match="logit_bias"):
        metal_gen.SamplingStrategy(logit_bias=bad)


def test_a_bias_of_a_strategy_beyond_the_vocabulary(loaded):
    strategy = metal_gen.SamplingStrategy(logit_bias={272: 1.0})
    with pytest.raises(UsageError, match="logit_bias names token 272, and the vocabulary ends at 271"):
        metal_gen.stream_generate(loaded, "x", strategy=strategy)


BIAS_BEYOND = """
import mlx.core as mx
from metal_gen import MetalGenError, SamplingStrategy, sample_token
try:
    sample_token(mx.zeros(8), SamplingStrategy(logit_bias={8: 1.0}), mx.random.key(0))
except MetalGenError as error:
    print(error.message)
"""


def test_a_bias_beyond_the_logits_of_a_single_draw(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", BIAS_BEYOND],
        env=clean_environment(tmp_path),
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout[:10]) == (0, b"logit_bias")


# Out of range: lists on the command line and in variables


@pytest.mark.parametrize("name", ["stop", "stop_token", "ban_token"])
@pytest.mark.parametrize("texts", [("",), ("a", "")], ids=str)
def test_an_empty_text_in_a_flag(refuse, name, texts):
    flag = SETTINGS[name].flag
    message, _ = refuse(*(part for text in texts for part in (flag, text)), code=USAGE)
    assert message == f"{flag} must not be empty: {', '.join(map(repr, texts))}"


@pytest.mark.parametrize("name", ["stop", "stop_token", "ban_token"])
def test_too_many_texts_in_a_flag(refuse, name):
    flag = SETTINGS[name].flag
    message, _ = refuse(*(part for text in TOO_MANY for part in (flag, text)), code=USAGE)
    assert message.startswith(f"{flag} {TEXTS}, and there are 4,097")


def test_the_refusal_of_too_many_texts_can_be_read(refuse):
    message, _ = refuse(*(part for text in TOO_MANY for part in ("--stop", text)), code=USAGE)
    assert len(message) < 1000


@pytest.mark.parametrize("name", ["stop", "stop_token", "ban_token"])
@pytest.mark.parametrize("text", ['[""]', "[1]", '["a"', '["a", ""]', json.dumps(TOO_MANY)], ids=brief)
def test_a_bad_list_in_a_variable(refuse, monkeypatch, name, text):
    monkeypatch.setenv(SETTINGS[name].variable, text)
    assert refuse(code=CONFIGURATION)[0].startswith(f"{SETTINGS[name].variable} {TEXTS}")


@pytest.mark.parametrize(
    "bad", ["a", "", "a=", "=1", "a=x", '{"a"', "a=nan", "a=inf", "a=10001", "a=-1e5", "a=1=x"]
)
def test_a_bad_bias(refuse, monkeypatch, bad):
    assert refuse("--logit-bias", bad, code=USAGE)[0] == f"--logit-bias {ONE_BIAS}, not {bad!r}"
    if bad:
        monkeypatch.setenv("METAL_GEN_LOGIT_BIAS", bad)
        assert refuse(code=CONFIGURATION)[0] == f"METAL_GEN_LOGIT_BIAS {ONE_BIAS}, not {bad!r}"


def test_one_bad_bias_among_good_ones(refuse):
    assert "--logit-bias" in refuse("--logit-bias", "a=1", "--logit-bias", "b=x", code=USAGE)[0]


@pytest.mark.parametrize("bad", ['{"a": "1"}', '{"a": NaN}', '{"a": 1e999}', '{"": 1}', '{"a": true}'])
def test_a_bad_bias_in_json(refuse, monkeypatch, bad):
    monkeypatch.setenv("METAL_GEN_LOGIT_BIAS", bad)
    assert refuse(code=CONFIGURATION)[0].startswith(f"METAL_GEN_LOGIT_BIAS {BIASES}")


@pytest.mark.parametrize("bad", ["maybe", "2", "-1"])
def test_a_bad_switch_in_a_variable(refuse, monkeypatch, bad):
    monkeypatch.setenv("METAL_GEN_IGNORE_EOS", bad)
    assert refuse(code=CONFIGURATION)[0] == f"METAL_GEN_IGNORE_EOS {BOOL}, not {bad!r}"


def test_a_switch_takes_no_value(refuse):
    assert "--ignore-eos" in refuse("--ignore-eos=1", code=USAGE)[0]


@pytest.mark.parametrize(
    "name", [name for name in SETTINGS if SETTINGS[name].section in ("sampling", "generation")]
)
def test_a_flag_without_its_value(refuse, name):
    if not isinstance(SETTINGS[name].check, Flag):
        assert SETTINGS[name].flag in refuse(SETTINGS[name].flag, code=USAGE)[0]


@pytest.mark.parametrize("name", ["stop", "logit_bias"])
def test_json_nested_too_deep_in_a_variable(refuse, monkeypatch, name):
    monkeypatch.setenv(SETTINGS[name].variable, {"stop": "[", "logit_bias": '{"a":'}[name] * 20_000)
    assert SETTINGS[name].variable in refuse(code=CONFIGURATION)[0]


# Unknown tokens

UNKNOWN = [
    ("272", "there is no token 272: the vocabulary ends at 271"),
    ("99999999999999999999", "there is no token 99999999999999999999: the vocabulary ends at 271"),
    ("xyz", "there is no single token 'xyz': it takes 3 tokens"),
    ("<|im_begin|>", "there is no single token '<|im_begin|>': it takes 12 tokens"),
    ("-1", "there is no single token '-1': it takes 2 tokens"),
    ("1.0", "there is no single token '1.0': it takes 3 tokens"),
]
NAMING = ("ban_token", "stop_token", "logit_bias")


def naming(setting, name):
    return f"{name}=1" if setting == "logit_bias" else name


@pytest.mark.parametrize("setting", NAMING)
@pytest.mark.parametrize(("name", "message"), UNKNOWN)
def test_an_unknown_token_in_a_flag(refuse, setting, name, message):
    actual, hint = refuse(SETTINGS[setting].flag, naming(setting, name), code=USAGE)
    assert actual.endswith(message)
    assert ("name one of them by its id" in hint) == ("takes" in message)
    assert hint


@pytest.mark.parametrize("setting", NAMING)
@pytest.mark.parametrize(("name", "message"), UNKNOWN)
def test_an_unknown_token_in_the_library(loaded, monkeypatch, setting, name, message):
    monkeypatch.setattr(loaded.decoder, "prefill", None)
    value = {name: 1.0} if setting == "logit_bias" else [name]
    with pytest.raises(UsageError, match=re.escape(message)):
        metal_gen.stream_generate(loaded, "x", **{setting: value})


@pytest.mark.parametrize("setting", NAMING)
@pytest.mark.parametrize("name", ["272", "xyz"])
def test_an_unknown_token_is_refused_with_the_name_of_the_option(refuse, setting, name):
    message, _ = refuse(SETTINGS[setting].flag, naming(setting, name), code=USAGE)
    assert SETTINGS[setting].flag in message or setting in message


@pytest.mark.parametrize("setting", NAMING)
@pytest.mark.parametrize("name", ["272", "xyz"])
def test_an_unknown_token_in_a_settings_file(refuse_file, setting, name):
    value = {name: 1.0} if setting == "logit_bias" else [name]
    assert SETTINGS[setting].key in refuse_file(setting, value)[0]


@pytest.mark.parametrize("setting", NAMING)
def test_an_unknown_token_in_a_variable(refuse, monkeypatch, setting):
    monkeypatch.setenv(SETTINGS[setting].variable, naming(setting, "xyz"))
    assert SETTINGS[setting].variable in refuse(code=CONFIGURATION)[0]


@pytest.mark.parametrize("setting", NAMING)
def test_an_unknown_token_is_refused_by_load(letters, setting):
    value = {"xyz": 1.0} if setting == "logit_bias" else ["xyz"]
    with pytest.raises(UsageError):
        metal_gen.load(letters, **{setting: value})


@pytest.mark.parametrize("setting", NAMING)
def test_an_id_of_thousands_of_digits(refuse, setting):
    message, _ = refuse(SETTINGS[setting].flag, naming(setting, "9" * 5000), code=USAGE)
    assert "the vocabulary ends at 271" in message


@pytest.mark.parametrize("setting", NAMING)
def test_half_a_character_as_a_token_in_a_variable(refuse, monkeypatch, setting):
    text = r'{"\ud800": 1}' if setting == "logit_bias" else r'["\ud800"]'
    monkeypatch.setenv(SETTINGS[setting].variable, text)
    refuse(code=CONFIGURATION)


# Options at work


def test_bias_is_repeatable_and_of_one_token_the_last_counts(say):
    assert say("--logit-bias", "b=1000", "--logit-bias", "c=900", "-n", "1").stdout == b"b"
    assert say("--logit-bias", "b=1000", "--logit-bias", "c=1001", "-n", "1").stdout == b"c"
    assert say("--logit-bias", "b=1000", "--logit-bias", "b=-1000", "-n", "1").stdout == b"a"
    assert say("--logit-bias", "98=1000", "-n", "2").stdout == b"bb"
    assert say("--logit-bias", "<|im_end|>=1000").stdout == b""


def test_a_bias_on_an_equals_sign(say):
    assert say("--logit-bias", "==1000", "-n", "2").stdout == b"=="


@pytest.mark.parametrize(
    "token",
    [
        "[",
        "}",
        *(pytest.param(token) for token in ("{", '{"', " {")),
    ],
)
def test_a_bias_on_a_bracket(token):
    assert LOGIT_BIAS.from_texts([f"{token}=5"]) == ((token, 5.0),)


def test_banned_tokens_are_never_drawn(say):
    assert say("--ban-token", "a", "-n", "1").stdout != b"a"
    said = say("--ban-token", "e", "--ban-token", "102", "--ban-token", "<|im_end|>", "-n", "30").stdout
    assert said.startswith(b"abcd")
    assert not {*b"ef"} & {*said}


def test_settings_that_ban_every_token_are_at_fault_and_not_the_checkpoint(run_here, gambler, tmp_path):
    def generate(banned):
        (tmp_path / "ban.toml").write_text(f"[sampling]\nban_token = {json.dumps(list(map(str, banned)))}\n")
        return run_here(
            *("generate", "-p", "a", "--model", gambler, "--max-tokens", 2),
            *("--config", tmp_path / "ban.toml"),
        )

    outcome = generate(range(TEXT_VOCAB))
    assert (outcome.code, outcome.stdout) == (CONFIGURATION, b"")
    assert "no token can be chosen at new token 1: every token of the vocabulary is banned" in outcome.stderr
    assert generate(range(TEXT_VOCAB - 1)).code != CONFIGURATION


def test_a_ban_goes_before_a_bias(say):
    assert b"b" not in say("--logit-bias", "b=10000", "--ban-token", "b", "-n", "20").stdout


def test_a_bias_in_every_place_to_write_it(say, tmp_path):
    (tmp_path / "bias.toml").write_text('[sampling]\nlogit_bias = { "b" = 1000, "99" = 900.0 }\n')
    assert say("--config", "bias.toml", "-n", "1").stdout == b"b"
    assert say("-n", "1", METAL_GEN_LOGIT_BIAS="b=1000").stdout == b"b"
    assert say("-n", "1", METAL_GEN_LOGIT_BIAS='{"b": 1000, "c": 1e3}').stdout == b"b"
    assert say("-n", "1", "--logit-bias", "c=1000", METAL_GEN_LOGIT_BIAS="b=1000").stdout == b"c"


def test_stop_strings_are_repeatable(say):
    assert say("--stop", "ef", "--stop", "cd").stdout == b"ab"
    assert say("--stop", "zz", "--stop", "fgh").stdout == b"abcde"
    assert say("--stop", "[a", "--stop", "gh").stdout == b"abcdef"
    assert say("--stop", LETTERS).stdout == b""
    assert say("--stop", LETTERS + "i").stdout == LETTERS.encode()


def test_stop_strings_in_every_place_to_write_them(say, tmp_path):
    (tmp_path / "stop.toml").write_text('[generation]\nstop = ["ef", "cd"]\n')
    assert say("--config", "stop.toml").stdout == b"ab"
    assert say(METAL_GEN_STOP="ef").stdout == b"abcd"
    assert say(METAL_GEN_STOP='["ef", "cd"]').stdout == b"ab"
    assert say("--stop", "gh", METAL_GEN_STOP="ef").stdout == b"abcdef"


def test_a_stop_string_of_several_bytes_and_lines(speaker, say):
    for stop, said in (("é", "[red] a"), ("\n", SAID[: SAID.index("\n")]), ("\x1b(", "[red] aé")):
        assert say("--stop", stop, model=speaker).stdout.decode() == said


def test_stop_tokens_are_repeatable(say):
    assert say("--stop-token", "e", "--stop-token", "99").stdout == b"ab"
    assert say("--stop-token", "<|im_end|>").stdout == LETTERS.encode()


def test_min_tokens_and_ignore_eos(say):
    assert len(say("--min-tokens", "12", "-n", "40", "--ban-token", "a").stdout) >= 12
    assert len(say("--ignore-eos", "-n", "30").stdout) == 30
    assert say("--ignore-eos", "--no-ignore-eos", "-n", "30").stdout == LETTERS.encode()
    assert say("--no-ignore-eos", "-n", "30", METAL_GEN_IGNORE_EOS="1").stdout == LETTERS.encode()


def test_penalties_choose_another_token(say, endless):
    def said(*arguments):
        return say("-n", "5", "--logit-bias", "c=164", *arguments, model=endless).stdout

    # The model says a and b by 164.9; penalties are applied before the bias.
    assert said() == b"ababa"
    assert said("--repetition-penalty", "1", "--presence-penalty", "0") == b"ababa"
    assert said("--repetition-penalty", "1.1") == b"abccc"
    assert said("--presence-penalty", "2") == b"abcab"
    assert said("--frequency-penalty", "0.5") == b"ababc"
    assert said("--frequency-penalty", "-2") == b"ababa"


@pytest.mark.parametrize("penalty", ["100", "0.01"])
def test_a_repetition_penalty_that_is_allowed_does_not_damage_the_logits(say, penalty):
    say("--repetition-penalty", penalty)


# Log-probabilities


@pytest.mark.parametrize("arguments", [(), ("-q",)], ids=["", "quiet"])
def test_logprobs_are_json_lines_on_stderr(say, arguments):
    outcome = say("--logprobs", "3", *arguments)
    assert outcome.stdout == LETTERS.encode()
    records = [json.loads(line) for line in outcome.stderr.splitlines() if line.startswith("{")]
    assert [record["token_id"] for record in records] == [*LETTERS.encode(), 257]
    for record in records:
        assert set(record) >= {"token_id", "model_logprob", "sampling_logprob", "top_model_logprobs"}
        values = [value for _, value in record["top_model_logprobs"]]
        assert len(values) == 3
        assert values == sorted(values, reverse=True)
        assert record["top_model_logprobs"][0][0] == record["token_id"]
        assert record["model_logprob"] == pytest.approx(values[0])
        assert record["sampling_logprob"] == 0
    others = [line for line in outcome.stderr.splitlines() if not line.startswith("{")]
    assert len(others) == (0 if arguments else 1)


@pytest.mark.parametrize("count", [0, 1, 100])
def test_how_many_logprobs(say, count):
    records = map(json.loads, say("--logprobs", str(count), "-q").stderr.splitlines())
    assert [len(record["top_model_logprobs"]) for record in records] == [count] * 9


def test_logprobs_do_not_change_the_draws(gambler, say):
    arguments = ("--raw", "--temperature", "1", "--top-k", "40", "--seed", "5", "-n", "20", "-q")
    plain = say(*arguments, model=gambler)
    given = say(*arguments, "--logprobs", "2", model=gambler)
    assert plain.stdout
    assert given.stdout == plain.stdout
    for record in map(json.loads, given.stderr.splitlines()):
        assert record["model_logprob"] <= record["top_model_logprobs"][0][1] <= 0
        assert -100 < record["sampling_logprob"] <= 0


def test_logprobs_of_a_text_that_a_stop_string_cuts(say):
    outcome = say("--logprobs", "0", "-q", "--stop", "cd")
    assert outcome.stdout == b"ab"
    assert [json.loads(line)["token_id"] for line in outcome.stderr.splitlines()] == list(b"abcd")


def test_logprobs_are_not_mixed_with_the_text_on_a_terminal(run, letters, say, monkeypatch, tmp_path):
    monkeypatch.setattr(Console, "stdout_is_terminal", True)
    monkeypatch.setattr(Console, "stderr_is_terminal", True)
    outcome = run(letters, "-p", "x", "--logprobs", "1")
    assert (outcome.code, outcome.stdout) == (USAGE, b"")
    assert "hint: --json or --jsonl" in outcome.stderr
    assert say("--logprobs", "1", "--json").code == 0
    assert say("--logprobs", "1", "-o", str(tmp_path / "text")).code == 0


def test_logprobs_are_not_mixed_with_the_text_in_one_file(letters, tmp_path):
    arguments = ("generate", "-m", letters, "-p", "x", "--logprobs", "1")
    assert run_cli(*arguments, home=tmp_path, redirect=">log 2>&1").code == USAGE
    assert "would be mixed in one file" in (tmp_path / "log").read_text()
    assert run_cli(*arguments, home=tmp_path, redirect=">/dev/null 2>&1").code == 0


def test_logprobs_in_a_file_leave_the_text_on_the_terminal_alone(speaker, tmp_path):
    arguments = ("generate", "--model", speaker, "-p", "x", "-q", "--logprobs", "1")
    outcome = run_in_terminal(*arguments, home=tmp_path, attached=("stdout",))
    assert len(outcome.stderr.splitlines()) == len(SAID.encode()) + 1
    assert outcome.screen.decode() == SHOWN + "\n"


# Contradictions


def test_a_text_that_must_be_longer_than_it_may_be(refuse, refuse_file, monkeypatch):
    message, hint = refuse("--max-tokens", "3", "--min-tokens", "10", code=USAGE)
    assert (message, hint) == (
        "--min-tokens 10 is above --max-tokens 3",
        "lower min_tokens, or raise max_tokens",
    )
    monkeypatch.setenv("METAL_GEN_MAX_TOKENS", "3")
    assert refuse("--min-tokens", "10", code=USAGE)[0] == "--min-tokens 10 is above METAL_GEN_MAX_TOKENS 3"
    message, _ = refuse_file("min_tokens", 10)
    assert message == "[generation] min_tokens 10 is above METAL_GEN_MAX_TOKENS 3"


def test_a_text_of_the_library_that_must_be_longer_than_it_may_be(loaded):
    with pytest.raises(UsageError, match=r"^min_tokens 10 is above max_tokens 3(\n|$)"):
        metal_gen.generate(loaded, "x", min_tokens=10, max_tokens=3)
    assert metal_gen.generate(loaded, "x", min_tokens=3, max_tokens=3).statistics.completion_tokens == 3


def test_a_warning_if_all_samples_will_be_equal(say):
    assert "all 2 texts will be equal" in say("--samples", "2").stderr
    assert "--temperature 0.8" in say("--samples", "2", "--greedy").stderr
    for arguments in (
        ("--samples", "2", "--top-p", "0.9"),
        (
            "--samples",
            "1",
        ),
        ("--samples", "2", "-q"),
    ):
        assert "equal" not in say(*arguments).stderr


# Messages


def test_verbose_says_what_is_in_force_and_why(say, tmp_path):
    (tmp_path / "settings.toml").write_text('[generation]\nstop = ["fgh"]\n[sampling]\nmin_p = 0.1\n')
    flags = ("--repetition-penalty", "1.5", "--ban-token", "z", "--logit-bias", "y=1", "--top-k", "5")
    outcome = say("-v", "--config", "settings.toml", *flags, METAL_GEN_MIN_TOKENS="2")
    assert outcome.stdout == b"abcde"
    lines = outcome.stderr.splitlines()
    sampling = next(line for line in lines if line.startswith("metal-gen: sampling: "))
    for part in (
        "temperature 1",
        "top-k 5",
        "min-p 0.1",
        "repetition penalty 1.5",
        "min tokens 2",
        "bias on 2",
    ):
        assert part in sampling
    for line in (
        "metal-gen: min_p = 0.1 (settings.toml)",
        'metal-gen: stop = ["fgh"] (settings.toml)',
        "metal-gen: min_tokens = 2 (METAL_GEN_MIN_TOKENS)",
        "metal-gen: repetition_penalty = 1.5 (--repetition-penalty)",
        'metal-gen: ban_token = ["z"] (--ban-token)',
        'metal-gen: logit_bias = { "y" = 1.0 } (--logit-bias)',
    ):
        assert line in lines


def test_verbose_says_greedy(say):
    for arguments in ((), ("--greedy",), ("--temperature", "0"), ("--top-k", "1")):
        assert "metal-gen: sampling: greedy\n" in say("-v", *arguments).stderr


@pytest.mark.parametrize(
    ("arguments", "finish"),
    [
        ((), " tokens; stop (eos); "),
        (("--stop", "ef", "--stop", "it's"), " tokens; stop (stop_text 'ef'); "),
        (("--stop-token", "e"), " tokens; stop (stop_token); "),
        (("-n", "3"), ", answer 3 tokens; length (max_tokens); "),
        (("--max-seq-len", "22"), " tokens; length (cache_full); "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else value,
)
def test_the_closing_line_says_why_the_text_ends(say, arguments, finish):
    closing = say("-v", *arguments).stderr.splitlines()[-1]
    assert finish in closing


def test_the_closing_line_of_every_sample(say):
    outcome = say("-v", "--samples", "3", "--stop", "cd")
    assert outcome.stdout == b"ab\0" * 3
    assert outcome.stderr.count("stop (stop_text 'cd');") == 3


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_samples_on_a_full_disk(letters, tmp_path):
    arguments = ("generate", "--model", letters, "-p", "x", "--samples", "2", "--stop", "a")
    outcome = run_cli(*arguments, home=tmp_path, redirect=">/dev/full")
    assert outcome.code == 1
    assert "metal-gen: the text cannot be written: No space left on device" in outcome.stderr
    assert "Traceback" not in outcome.stderr
