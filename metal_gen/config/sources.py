"""Reads settings from TOML files, the environment and arguments, and merges them.

Defines the order of precedence: arguments, variables, `--config FILE`, the user's file, defaults. The
environment and the arguments are passed in.
"""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

from metal_gen.config.checks import RefusedError, with_value
from metal_gen.config.library_path import require_safe_library
from metal_gen.config.setting_info import TERMINAL, SettingInfo
from metal_gen.config.settings import ARGUMENT_SOURCE, SETTINGS, Settings
from metal_gen.config.toml_file import read_document
from metal_gen.errors import ConfigError, UsageError

LONGEST_SHOWN = 200
PREFIX = "METAL_GEN_"
# Variables of the project's own tests.
OTHER_VARIABLES = ("METAL_GEN_EXTRAS", "METAL_GEN_TEST_TOKENIZER")


def resolve_settings(
    *, config_file: Path | None = None, environ: Mapping[str, str] | None = None
) -> Settings:
    """Override the defaults with files and variables.

    Args:
        config_file: A TOML file, which must exist.
        environ: Environment variables; if given, the user's own file is read too, if it exists.

    Raises:
        ConfigError: A file or a variable is invalid.
    """
    settings = Settings()
    own_file = user_config_file(environ) if environ is not None else None
    if own_file is not None and is_there(own_file):
        settings = settings.override(read_toml(own_file, is_own=True), str(own_file))
    if config_file is not None:
        settings = settings.override(read_toml(config_file), str(config_file))
    if environ is not None:
        variables = _from_environment(environ)
        settings = settings.override(variables, {name: SETTINGS[name].variable for name in variables})
    return settings


def override_with_arguments(settings: Settings, arguments: Mapping[str, object]) -> Settings:
    """Override settings with a program's arguments; None means "not given".

    Raises:
        UsageError: A name is unknown or for the command line only, or a value is out of range.
    """
    values = {}
    known = [name for name, info in SETTINGS.items() if info.section != TERMINAL]
    for name, value in arguments.items():
        if name not in known:
            raise UsageError(f"there is no setting {name}", nearest(name, known))
        if value is not None:
            try:
                values[name] = SETTINGS[name].check(value)
            except ValueError as error:
                raise UsageError(
                    f"{name} {with_value(error, _short(value))}", _hint(error, SETTINGS[name])
                ) from None
    return settings.override(values, ARGUMENT_SOURCE)


FlagValue = str | bool | Sequence[str] | None


def override_with_flags(settings: Settings, flags: Mapping[str, FlagValue]) -> Settings:
    """Override settings with command-line options; None means "not given".

    A sequence is an option that can be given several times; an empty one was not given.

    Raises:
        UsageError: A value is out of range.
    """
    values: dict[str, object] = {}
    for name, given in flags.items():
        info = SETTINGS[name]
        texts = list(given) if isinstance(given, list | tuple) else []
        try:
            if texts:
                values[name] = info.check.from_texts(texts)
            elif isinstance(given, str):
                values[name] = info.check.from_text(given)
            elif isinstance(given, bool):
                values[name] = given
        except ValueError as error:
            shown = ", ".join(map(repr, texts)) if texts else repr(given)
            raise UsageError(f"{info.flag} {with_value(error, _cut(shown))}", _hint(error, info)) from None
    return settings.override(values, {name: SETTINGS[name].flag for name in values})


def unknown_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return unknown METAL_GEN_* variables, each with the nearest setting's variable, or an empty text."""
    names = [info.variable for info in SETTINGS.values()]
    unknown = [
        name
        for name in sorted(environ)
        if name.startswith(PREFIX) and name not in (*names, *OTHER_VARIABLES) and environ[name]
    ]
    return {name: "".join(get_close_matches(name, names, n=1, cutoff=0.8)) for name in unknown}


def user_config_file(environ: Mapping[str, str]) -> Path | None:
    """Return `$XDG_CONFIG_HOME/metal-gen/config.toml`; None without a home folder."""
    if base := environ.get("XDG_CONFIG_HOME"):
        return Path(base) / "metal-gen" / "config.toml"
    if home := environ.get("HOME"):
        return Path(home) / ".config" / "metal-gen" / "config.toml"
    return None


def is_there(own_file: Path) -> bool:
    """Return whether the user's own settings file exists.

    Raises:
        ConfigError: There is no permission to look.
    """
    try:
        return own_file.is_file()
    except OSError as error:
        raise ConfigError(
            f"cannot look for your settings file: {error.strerror}: {own_file}",
            "set XDG_CONFIG_HOME to a folder that can be read",
        ) from None


def read_toml(path: Path, *, is_own: bool = False) -> dict[str, object]:
    """Read a settings file.

    Args:
        path: Path of the file.
        is_own: Whether it is the user's own file, which may name a library by its path.

    Returns:
        Checked values by setting name.

    Raises:
        ConfigError: The file or a key is invalid; the message names both.
    """
    values: dict[str, object] = {}
    for section, table in read_document(path).items():
        keys = {info.key: info for info in SETTINGS.values() if info.section == section}
        if not keys:
            raise _unknown_section(path, section)
        if not isinstance(table, dict):
            raise ConfigError(f"{path}: [{section}] must be a table of settings, not {_short(table)}")
        for key, value in table.items():
            if key not in keys:
                raise _unknown_key(path, section, key)
            values[keys[key].name] = _checked(f"{path}: [{section}] {key}", keys[key], value)
    require_safe_library(values, f"{path}: [cpu] blas", may_be_path=is_own)
    return values


def _from_environment(environ: Mapping[str, str]) -> dict[str, object]:
    values = {}
    for name, info in SETTINGS.items():
        text = environ.get(info.variable)
        if text:
            try:
                text.encode()
                values[name] = info.check.from_text(text)
            except UnicodeEncodeError:
                raise ConfigError(f"{info.variable} is not UTF-8: {text!a}") from None
            except ValueError as error:
                message = f"{info.variable} {with_value(error, _short(text))}"
                raise ConfigError(message, _hint(error, info)) from None
    require_safe_library(values, SETTINGS["blas"].variable, may_be_path=True)
    return values


def _checked(place: str, info: SettingInfo, value: object) -> object:
    try:
        return info.check.from_file_value(value)
    except ValueError as error:
        raise ConfigError(f"{place} {with_value(error, _short(value))}", _hint(error, info)) from None


def _hint(error: ValueError, info: SettingInfo) -> str:
    """Return the hint of a refused value: its own, or that of the setting."""
    return error.hint if isinstance(error, RefusedError) else info.hint


def _unknown_section(path: Path, name: str) -> ConfigError:
    places = [f"[{info.section}]" for info in SETTINGS.values() if name in (info.key, info.name)]
    if places:
        hint = f"write it under {' or '.join(places)}"
        return ConfigError(f"{path}: {name} is outside its section", hint)
    sections = sorted({info.section for info in SETTINGS.values()})
    return ConfigError(f"{path}: there is no section [{_cut(name)}]", nearest(name, sections))


def _unknown_key(path: Path, section: str, key: str) -> ConfigError:
    for info in SETTINGS.values():
        if key == info.key and section != info.section:
            return ConfigError(
                f"{path}: [{section}] has no setting {key}", f"{key} belongs under [{info.section}]"
            )
    keys = [info.key for info in SETTINGS.values() if info.section == section]
    return ConfigError(f"{path}: [{section}] has no setting {_cut(key)}", nearest(key, keys))


def _short(value: object) -> str:
    """Return a value as text, shortened for a message."""
    try:
        text = repr(value)
    except ValueError:
        return "a number of thousands of digits"
    except RecursionError:
        return "something nested too deeply"
    return _cut(text)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 3] + "..."


def nearest(name: str, names: list[str]) -> str:
    """Return a hint with the closest of the names, or with all of them."""
    # Matching takes quadratic time, so only the beginning of a long name is compared.
    if close := get_close_matches(name[:LONGEST_SHOWN], names, n=1):
        return f"did you mean {close[0]}?"
    return f"there are {', '.join(names)}"


def place_of(settings: Settings, name: str) -> tuple[str, type[UsageError] | type[ConfigError]]:
    """Return where a setting was set, for a message, and the type of error for that place."""
    info, source = SETTINGS[name], settings.source(name)
    if source == ARGUMENT_SOURCE:
        return name, UsageError
    if source == info.flag:
        return source, UsageError
    if source == info.variable:
        return source, ConfigError
    return f"{source}: [{info.section}] {info.key}", ConfigError


def refusal(settings: Settings, name: str, problem: str, hint: str) -> UsageError | ConfigError:
    """Return an error that names the place of a setting."""
    place, refuse = place_of(settings, name)
    return refuse(f"{place}: {problem}", hint)
