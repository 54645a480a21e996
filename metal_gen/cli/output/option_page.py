"""The page of an option: its effect in each command, its range, and where else it can be set."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from metal_gen.cli.names_elsewhere import SAME
from metal_gen.cli.option_help import described, names_of
from metal_gen.config.checks import Flag
from metal_gen.config.setting_info import TERMINAL, SettingInfo
from metal_gen.config.settings import SETTINGS
from metal_gen.config.settings_file import example_of
from metal_gen.config.sources import PREFIX

if TYPE_CHECKING:
    from rich.console import RenderableType

# The manual page about the settings of each TOML section.
PAGE_OF_SECTION = {
    "model": "models",
    "cache": "memory",
    "memory": "memory",
    "cpu": "speed",
    "prefill": "memory",
    "decode": "speed",
    "prefix_cache": "prefixes",
    "sampling": "sampling",
    "generation": "generate",
    TERMINAL: "generate",
}
PAGE_OF_OPTION = {
    "adapter": "adapters",
    "rope_scaling": "longer-texts",
    "samples": "sampling",
    "logprobs": "sampling",
    **dict.fromkeys(("schema", "regex", "choice", "grammar"), "structured-output"),
    **dict.fromkeys(("thinking_budget", "break_loops"), "structured-output"),
    **dict.fromkeys(("speculate", "draft_model", "draft_tokens"), "speculation"),
    # No settings.
    "config": "settings",
    "greedy": "sampling",
    "json": "json",
    "jsonl": "json",
    # Options of all commands over rows.
    **dict.fromkeys(("resume", "retry_failed", "overwrite", "strict", "ordered", "fsync_interval"), "batch"),
    **dict.fromkeys(("cluster", "summary"), "batch"),
}
# And on an option that is no setting, by the first word of its command.
PAGE_OF_COMMAND = {
    "generate": "generate",
    "chat": "chat",
    "batch": "batch",
    "score": "scores",
    "rank": "scores",
    "models": "models",
    "plan": "memory",
    "convert": "models",
    "cache": "prefixes",
    "bench": "benchmarks",
    "config": "settings",
    "completion": "commands",
    "info": "troubleshooting",
}


@dataclass(frozen=True)
class Found:
    """An option of a command.

    Attributes:
        command: Name of the command.
        param: The option, as an object of typer.
    """

    command: str
    param: Any


def find_options(typed: str, program: Any, context: Any) -> list[Found]:
    """Return the options with a name, given with or without dashes, or as another program calls them."""
    return [found for found in every_option(program, context) if typed in _words(found.param)]


def every_option(program: Any, context: Any, path: Sequence[str] = ()) -> Iterator[Found]:
    """Yield all options of a program's commands that the help shows."""
    for param in program.get_params(context):
        if param.param_type_name == "option" and not param.hidden:
            yield Found(" ".join(path), param)
    for name in getattr(program, "commands", {}):
        yield from every_option(program.commands[name], context, (*path, name))


def option_words(found: Sequence[Found]) -> list[str]:
    """Return the long names of options, without dashes."""
    return [name[2:] for each in found for name in each.param.opts if name.startswith("--")]


def setting_named(typed: str) -> SettingInfo | None:
    """Return the setting with a name; it may have no option."""
    name = typed.removeprefix(PREFIX).lower().lstrip("-").replace("-", "_")
    return SETTINGS.get(name)


def render_options(found: Sequence[Found], setting: SettingInfo | None) -> "RenderableType":
    """Return the page of all options with one name, or of a setting that has no option."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    from metal_gen.cli.terminal.tables import pairs_table

    texts: dict[tuple[str, str], list[str]] = {}
    for each in found:
        texts.setdefault((names_of(each.param), described(each.param)), []).append(each.command)
    if setting is not None and not found:
        texts[setting.name, f"{setting.help} [default: {setting.shown_default}]"] = []
    parts: list[RenderableType] = []
    for (names, text), commands in texts.items():
        rows = [("commands", ", ".join(filter(None, commands)))]
        rows.append(("also called", _other_names(found[0].param) if found else ""))
        # An option of a command's own may have the name of a setting.
        if setting is not None and text.startswith(setting.help):
            rows += _places(setting)
        else:
            rows.append(("more", _more(found[0].param.name, commands)))
        parts += [Text(names, style="bold"), Padding(Text(text), (0, 0, 0, 4)), Text("")]
        parts += [pairs_table(rows), Text("")]
    return Group(*parts[:-1])


def _places(info: SettingInfo) -> list[tuple[str, str]]:
    """Return the range of a setting, and where it can be set besides the command line."""
    return [
        ("must be", "" if isinstance(info.check, Flag) else str(info.check)),
        ("in a file", f"{info.section}.{info.key} = {example_of(info)}"),
        ("variable", info.variable),
        ("more", f"metal-gen help {PAGE_OF_OPTION.get(info.name) or PAGE_OF_SECTION[info.section]}"),
    ]


def _more(name: str, commands: Sequence[str]) -> str:
    """Return the command for the manual page of an option that is not a setting; empty if not unique."""
    pages = {PAGE_OF_COMMAND.get(command.partition(" ")[0], "") for command in commands}
    page = PAGE_OF_OPTION.get(name) or (pages.pop() if len(pages) == 1 else "")
    return f"metal-gen help {page}" if page else ""


def _other_names(param: Any) -> str:
    return ", ".join(name for name, ours in SAME.items() if ours == param.name)


def _words(param: Any) -> set[str]:
    """Return the ways to name an option: with and without dashes, with underscores, by its variable."""
    names = {*param.opts, *param.secondary_opts, *_other_names(param).split(", ")} - {""}
    words = {name.lstrip("-") for name in names if name.startswith("--")}
    variables = [SETTINGS[param.name].variable] if param.name in SETTINGS else []
    return {*names, *words, *(word.replace("-", "_") for word in words), *variables}
