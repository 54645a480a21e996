"""Tests the sources of settings: their precedence, and what is refused."""

import pytest

from metal_gen.config.checks import Whole
from metal_gen.config.settings import SETTINGS, Settings
from metal_gen.config.sources import (
    override_with_arguments,
    override_with_flags,
    resolve_settings,
    unknown_variables,
)
from metal_gen.errors import ConfigError, UsageError


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_each_source_overrides_the_one_before(tmp_path):
    own = write(
        tmp_path / "xdg/metal-gen/config.toml",
        "[sampling]\ntop_k = 1\ntop_p = 0.1\nseed = 1\ntemperature = 0.1",
    )
    given = write(tmp_path / "given.toml", "[sampling]\ntop_k = 2\ntop_p = 0.2\nseed = 2")
    environ = {"XDG_CONFIG_HOME": str(tmp_path / "xdg"), "METAL_GEN_TOP_P": "0.3", "METAL_GEN_SEED": "3"}
    settings = override_with_flags(
        resolve_settings(config_file=given, environ=environ), {"seed": "4", "top_k": None}
    )
    assert (settings.temperature, settings.top_k, settings.top_p, settings.seed) == (0.1, 2, 0.3, 4)
    assert settings.source("temperature") == str(own)
    assert settings.source("top_k") == str(given)
    assert settings.source("top_p") == "METAL_GEN_TOP_P"
    assert settings.source("seed") == "--seed"
    assert settings.source("chunk_size") == "default"


def test_the_environment_is_only_read_when_it_is_handed_over(monkeypatch):
    monkeypatch.setenv("METAL_GEN_TOP_K", "7")
    assert resolve_settings().top_k is None


def test_fill_gives_way_to_what_anybody_has_set():
    settings = override_with_arguments(Settings(), {"top_k": 5}).fill(
        {"top_k": 20, "top_p": 0.8}, "checkpoint"
    )
    assert (settings.top_k, settings.top_p) == (5, 0.8)
    assert settings.source("top_p") == "checkpoint"


def test_an_unknown_variable_is_found_with_the_nearest_setting():
    environ = {
        "METAL_GEN_MAX_SEQ_LENN": "9",
        "METAL_GEN_COLOUR": "red",
        "METAL_GEN_EMPTY": "",
        "METAL_GEN_SEED": "1",
        "METAL_GEN_TEST_TOKENIZER": "folder",
        "METAL_GENERATOR": "x",
    }
    assert unknown_variables(environ) == {
        "METAL_GEN_COLOUR": "",
        "METAL_GEN_MAX_SEQ_LENN": "METAL_GEN_MAX_SEQ_LEN",
    }


def test_home_is_where_the_users_file_is(tmp_path):
    write(tmp_path / ".config/metal-gen/config.toml", "[cache]\nmax_seq_len = 99")
    assert resolve_settings(environ={"HOME": str(tmp_path)}).max_seq_len == 99
    assert resolve_settings(environ={}).max_seq_len is None


@pytest.mark.parametrize(
    ("toml", "message", "hint"),
    [
        ("[cache]\nmax_seq_lenn = 1", "[cache] has no setting max_seq_lenn", "did you mean max_seq_len?"),
        ("[cachee]\nmax_seq_len = 1", "there is no section [cachee]", "did you mean cache?"),
        ("max_seq_len = 1", "max_seq_len is outside its section", "write it under [cache]"),
        ("[sampling]\nmax_seq_len = 1", "[sampling] has no setting max_seq_len", "belongs under [cache]"),
        (
            "[cache]\nmax_seq_len = '1'",
            "max_seq_len must be a whole number of at least 1, not '1'",
            "",
        ),
        ("[cache]\nmax_seq_len = true", "must be a whole number", ""),
        ("[cache]\nmax_seq_len = 0", "must be a whole number of at least 1, not 0", ""),
        ("[cache]\nmax_seq_len = 0.5", "must be a whole number of at least 1, not 0.5", ""),
        (
            f"[cache]\nmax_seq_len = {2**63}",
            "must be at most 9223372036854775807, not 922337203685477580",
            "",
        ),
        (f"[generation]\nmax_tokens = 0x{'f' * 5000}", "a number of thousands of digits", ""),
        ("[cache]\ndtype = 'int8'", "must be auto, float32, bfloat16, float16 or q8, not 'int8'", ""),
        ("[sampling]\ntop_p = 0", "must be a number above 0 and at most 1, not 0", ""),
        ("[sampling]\ntop_p = nan", "must be a number above 0", ""),
        ("[sampling]\ntemperature = -1", "must be a number of at least 0 and at most 1000, not -1", ""),
        ("[sampling]\ntemperature = inf", "must be a number of at least 0", ""),
        ("[sampling]\nseed = 18446744073709551616", "whole number from 0 to 18446744073709551615", ""),
        ("[generation]\nraw = 1", "must be true or false, not 1", ""),
        ("[model]\nrope_scaling = 4", "rope_scaling must be a table with a rope_type and, unless", ""),
        ("[model]\nrope_scaling = {rope_type = 'yarn'}", "unless that is default, a factor", ""),
        ("[model]\nrope_scaling = {factor = 2}", "must be a table with a rope_type", ""),
        ("[model]\nrope_scaling = {type = 'ntk', factor = 2}", "rope_type must be default, li", ""),
        ("[model]\nrope_scaling = {rope_type = 'yarn', factor = 0.5}", "factor must be a number of at", ""),
        ("[model]\nrope_scaling = {rope_type = 'yarn', facto = 2}", "has no field facto; there are rope", ""),
        ("cache = 3", "[cache] must be a table", ""),
        (f"sampling = 0x{'f' * 5000}", "[sampling] must be a table", ""),
        ("[cache\n", "is not valid TOML", ""),
    ],
)
def test_a_bad_file_is_named_with_its_key(tmp_path, toml, message, hint):
    path = write(tmp_path / "bad.toml", toml)
    with pytest.raises(ConfigError) as caught:
        resolve_settings(config_file=path)
    assert str(path) in caught.value.message
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_every_whole_number_can_be_reckoned_with_and_written():
    for info in SETTINGS.values():
        if isinstance(info.check, Whole):
            assert info.check(info.check.minimum) == info.check.minimum
            for digits in (30, 400, 5000):
                with pytest.raises(ValueError, match="must be"):
                    info.check(10**digits)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match="no settings file"):
        resolve_settings(config_file=tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="is a folder"):
        resolve_settings(config_file=tmp_path)
    (tmp_path / "latin.toml").write_bytes(b"# caf\xe9")
    with pytest.raises(ConfigError, match="not UTF-8"):
        resolve_settings(config_file=tmp_path / "latin.toml")
    (tmp_path / "a.toml").write_bytes(b"%PDF-1.7" + b" " * 200_000)
    with pytest.raises(ConfigError, match="toml is a PDF, not text") as refused:
        resolve_settings(config_file=tmp_path / "a.toml")
    assert refused.value.hint == f"convert it with pdftotext {tmp_path}/a.toml -"


@pytest.mark.parametrize(
    ("variable", "value"),
    [("METAL_GEN_TOP_P", "2"), ("METAL_GEN_RAW", "maybe"), ("METAL_GEN_MAX_SEQ_LEN", "1e3")],
)
def test_a_bad_variable_is_named(variable, value):
    with pytest.raises(ConfigError, match=variable):
        resolve_settings(environ={variable: value})


@pytest.mark.parametrize(("text", "value"), [("yes", True), ("0", False), ("ON", True), ("false", False)])
def test_flags_in_the_environment(text, value):
    assert resolve_settings(environ={"METAL_GEN_RAW": text}).raw is value


def test_scaling_of_positions_in_three_places(tmp_path):
    toml = write(tmp_path / "a.toml", '[model]\nrope_scaling = { rope_type = "yarn", factor = 4 }')
    text = '{"type": "yarn", "factor": 4.0}'
    for settings in (
        resolve_settings(config_file=toml),
        resolve_settings(environ={"METAL_GEN_ROPE_SCALING": text}),
        override_with_flags(Settings(), {"rope_scaling": text}),
    ):
        assert dict(settings.rope_scaling) == {"rope_type": "yarn", "factor": 4.0}
    with pytest.raises(UsageError, match=r"--rope-scaling must be a table .*, written as JSON, not 'yarn'"):
        override_with_flags(Settings(), {"rope_scaling": "yarn"})


def test_arguments_are_checked_by_name():
    with pytest.raises(UsageError, match=r"top_p must be a number above 0 and at most 1, not 1\.5"):
        override_with_arguments(Settings(), {"top_p": 1.5})
    with pytest.raises(UsageError) as caught:
        override_with_arguments(Settings(), {"max_seqlen": 4})
    assert caught.value.hint == "did you mean max_seq_len?"


def test_flags_are_called_by_their_flag():
    with pytest.raises(UsageError, match="--max-seq-len must be a whole number of at least 1, not '0'"):
        override_with_flags(Settings(), {"max_seq_len": "0"})


def test_one_word_in_three_places():
    info = SETTINGS["max_seq_len"]
    assert (info.key, info.flag, info.variable) == ("max_seq_len", "--max-seq-len", "METAL_GEN_MAX_SEQ_LEN")


def test_no_two_settings_share_a_key():
    assert len({(info.section, info.key) for info in SETTINGS.values()}) == len(SETTINGS)


def test_terminal_settings_are_not_arguments_of_the_library():
    with pytest.raises(UsageError, match="there is no setting hide_thinking"):
        override_with_arguments(Settings(), {"hide_thinking": True})
