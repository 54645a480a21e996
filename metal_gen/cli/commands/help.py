"""`metal-gen help`: shows a page of the manual, or the help of a command or an option."""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import typer

from metal_gen.cli.commands_elsewhere import INSTEAD, MEANT, SAME_COMMANDS
from metal_gen.cli.help_topics import ALIASES, find_topic, heading, mentions, topics, with_commands_for_links
from metal_gen.cli.names_elsewhere import HINTS
from metal_gen.cli.terminal.console import Console
from metal_gen.config.settings import SETTINGS
from metal_gen.config.sources import PREFIX
from metal_gen.errors import UsageError

# Shown at the end of the help.
EXAMPLES = (
    "metal-gen help",
    "metal-gen help sampling",
    "metal-gen help top-p",
    "metal-gen help models pull",
)
# Options such as --top-p are topics here.
TAKES_ANY_OPTION = True
# Maximum width of prose on a wider terminal.
MOST_COLUMNS = 100
# Similarity of words; a less similar word is not treated as a typing error.
LEAST_LIKENESS = 0.75


def _complete_topic(incomplete: str) -> list[str]:
    names = [*topics(), *(info.flag.removeprefix("--") for info in SETTINGS.values())]
    return [name for name in names if name.startswith(incomplete)]


def help(
    context: typer.Context,
    topic: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TOPIC]",
            help="Name a page, a command or an option",
            autocompletion=_complete_topic,
            show_default="a list of pages",
        ),
    ] = None,
) -> None:
    """Show a page of the manual, such as sampling or exit-codes, or explain an option, such as top-p."""
    console = Console()
    console.require_stdout()
    words = topic or []
    root = context.find_root()
    program: Any = root.command
    command, rest = _split_command(words, program)
    if not words:
        _list_topics(console)
    elif (page := _page_of(words)) is not None:
        _print_page(page.read_text(encoding="utf-8"), console)
    elif _is_option(words[0]) or _is_option("-".join(words)):
        _print_options(words, (), program, root, console)
    elif command and not rest:
        with program.make_context(root.info_name, [*command, "--help"]) as asked:
            program.invoke(asked)
    else:
        _print_options(rest, command, program, root, console)


def _page_of(words: Sequence[str]) -> Path | None:
    """Find the page that words name; None if there is none, or a single word is an option."""
    return None if len(words) == 1 and _is_option(words[0]) else find_topic(words)


def _is_option(word: str) -> bool:
    """Return whether a word is a setting or looks like an option."""
    return word.startswith("-") or word.replace("-", "_") in SETTINGS or word.startswith(PREFIX)


def _split_command(words: Sequence[str], program: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Split words into those that name a command, such as `models pull`, and those after it."""
    group = program
    named: list[str] = []
    for word in words:
        name = SAME_COMMANDS.get((group.name or "", word), word)
        if name not in getattr(group, "commands", {}):
            break
        group = group.commands[name]
        named.append(name)
    return tuple(named), tuple(words[len(named) :])


def _print_options(
    words: Sequence[str], command: Sequence[str], program: Any, root: Any, console: Console
) -> None:
    """Print everything about an option or a setting.

    Args:
        words: Words that name the option.
        command: Words of the command that has the option; empty for any command.
        program: The top-level command.
        root: Context of the program.
        console: Shows the page.

    Raises:
        UsageError: There is no option of this name.
    """
    from metal_gen.cli.output.option_page import every_option, find_options, render_options, setting_named
    from metal_gen.cli.terminal.tables import print_rendered

    path = " ".join(command)
    name = "-".join(words)
    found = [each for each in find_options(name, program, root) if path in ("", each.command)]
    setting = setting_named(found[0].param.name if found else name)
    if found or (setting is not None and not path):
        print_rendered(lambda width: render_options(found, setting), console)
        return
    if name in HINTS:
        raise UsageError(f"no such option: {name}", HINTS[name])
    options = [each for each in every_option(program, root) if path in ("", each.command)]
    if path:
        raise _no_such_option(" ".join(words), path, options)
    raise _no_such_topic(words, program, options)


def _no_such_option(word: str, path: str, options: Sequence[Any]) -> UsageError:
    from metal_gen.cli.output.option_page import option_words

    near = get_close_matches(word.lstrip("-"), option_words(options), n=1, cutoff=LEAST_LIKENESS)
    guess = f"did you mean --{near[0]}? " if near else ""
    return UsageError(
        f"no such option of metal-gen {path}: {word}", f"{guess}metal-gen {path} --help lists the options"
    )


def _no_such_topic(words: Sequence[str], program: Any, options: Sequence[Any]) -> UsageError:
    """Return the error for words without a page; the hint has an answer, a similar name, or pages."""
    from metal_gen.cli.output.option_page import option_words

    word = " ".join(words)
    name = "-".join(words).lower()
    found = [each for each in words if find_topic([each]) is not None]
    names = list(dict.fromkeys((*topics(), *ALIASES, *program.commands, *option_words(options))))
    hint = "metal-gen help lists the pages"
    if answer := INSTEAD.get(name) or HINTS.get(f"--{name}"):
        hint = answer
    elif name in MEANT:
        hint = f"did you mean metal-gen help {MEANT[name]}?"
    elif pages := mentions(words, whole=True):
        hint = f"it is mentioned in {', '.join(pages)}: metal-gen help {pages[0]}"
    elif near := get_close_matches(name, names, n=1, cutoff=LEAST_LIKENESS):
        hint = f"did you mean {near[0]}?"
    elif found:
        hint = f"name one page or one option: metal-gen help {found[0]}"
    elif pages := mentions(words):
        hint = f"it is mentioned in {', '.join(pages)}: metal-gen help {pages[0]}"
    return UsageError(f"there is no page on {word}", hint)


def _list_topics(console: Console) -> None:
    from metal_gen.cli.terminal.tables import Column, print_rendered, rows_table

    columns = (Column("topic"), Column("about"))
    rows = [(name, heading(path)) for name, path in topics().items()]
    print_rendered(lambda width: rows_table(columns, rows, width), console)
    console.detail("metal-gen help TOPIC shows a page; metal-gen help top-p explains an option")


def _print_page(text: str, console: Console) -> None:
    if not console.stdout_is_terminal:
        console.write_text(text)
        return

    from rich.constrain import Constrain
    from rich.markdown import Markdown

    from metal_gen.cli.terminal.tables import print_rendered

    shown = Markdown(with_commands_for_links(text), hyperlinks=False)
    print_rendered(lambda width: Constrain(shown, MOST_COLUMNS), console)
