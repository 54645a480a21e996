"""`metal-gen help`: a page of the manual, or the help of a command or an option."""

import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import typer

from metal_gen.cli.names_elsewhere import HINTS
from metal_gen.cli.terminal.console import Console
from metal_gen.config.settings import SETTINGS
from metal_gen.config.sources import PREFIX
from metal_gen.errors import UsageError

# For its help.
EXAMPLES = (
    "metal-gen help",
    "metal-gen help sampling",
    "metal-gen help top-p",
    "metal-gen help models pull",
)
# Such as --top-p, which is to be explained.
TAKES_ANY_OPTION = True
# Other words for a page.
ALIASES = {
    **dict.fromkeys(("samplers", "sampler", "strategy", "strategies", "filters"), "sampling"),
    **dict.fromkeys(("cache", "kv-cache", "context", "vram", "ram"), "memory"),
    **dict.fromkeys(
        ("batches", "batching", "cron", "jsonl-rows", "queue", "slots", "cluster", "ray"), "batch"
    ),
    **dict.fromkeys(
        ("model-files", "downloads", "download", "hub", "gguf", "quantization", "bits"), "models"
    ),
    **dict.fromkeys(("exit", "exits", "exit-code", "code", "codes", "errors"), "exit-codes"),
    **dict.fromkeys(("lora",), "adapters"),
    **dict.fromkeys(("mlx-lm", "llama-cli", "ollama", "other-programs"), "switching"),
    **dict.fromkeys(("yarn", "rope", "long-context", "long-texts"), "longer-texts"),
    **dict.fromkeys(("configuration", "variables", "environment", "toml"), "settings"),
    **dict.fromkeys(
        ("stdin", "stdout", "stderr", "pipe", "pipes", "shell", "terminal", "redirect"), "generate"
    ),
    **dict.fromkeys(("stopping", "stops", "stop-strings", "eos", "end"), "generate"),
    **dict.fromkeys(("conversation", "conversations", "talk"), "chat"),
    **dict.fromkeys(("performance", "fast", "slow", "openblas"), "speed"),
    **dict.fromkeys(("python", "api"), "library"),
    **dict.fromkeys(("problems", "faq", "hangs", "empty"), "troubleshooting"),
    **dict.fromkeys(("architectures", "families", "supported"), "formats"),
    **dict.fromkeys(("mac", "macs", "which"), "which-model"),
    **dict.fromkeys(("seeds", "repeat", "deterministic"), "reproducibility"),
    **dict.fromkeys(("architecture", "folders"), "source"),
    **dict.fromkeys(("status", "figures", "measurements"), "measured"),
}
# A page a file, in folders of guides, concepts and reference.
FOLDER = Path(__file__).resolve().parents[2] / "manual"
SECTIONS = ("guides", "concepts", "reference")


def topics() -> dict[str, Path]:
    """The pages, by topic."""
    return {path.stem: path for section in SECTIONS for path in sorted((FOLDER / section).glob("*.md"))}


def find_topic(words: Sequence[str]) -> Path | None:
    """The page that some words name: by its file, by its heading, or by another word."""
    topic, files = _slug(" ".join(words)), topics()
    if topic in files:
        return files[topic]
    headings = {_slug(_heading(path.read_text(encoding="utf-8"))): path for path in files.values()}
    return headings.get(topic) or files.get(ALIASES.get(topic, ""))


def _slug(text: str) -> str:
    return "-".join(re.findall(r"[a-z0-9]+", text.lower()))


def _heading(text: str) -> str:
    return text.partition("\n")[0].lstrip("# ")


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
    if not words:
        _list_topics(console)
    elif _is_option(words[0]) or (subject := _find(words, program)) is None:
        _print_options(words, program, root, console)
    elif isinstance(subject, Path):
        _print_topic(subject.read_text(encoding="utf-8"), console)
    else:
        with program.make_context(root.info_name, [*words, "--help"]) as asked:
            program.invoke(asked)


def _is_option(word: str) -> bool:
    """Whether this is a setting or is written as an option: its page says more of it than a section."""
    return word.startswith("-") or word.replace("-", "_") in SETTINGS or word.startswith(PREFIX)


def _find(words: Sequence[str], program: Any) -> Path | str | None:
    """The file of a subject, or the name of a command."""
    subject = find_topic(words)
    return words[0] if subject is None and words[0] in program.commands else subject


def _print_options(words: Sequence[str], program: Any, root: Any, console: Console) -> None:
    """Print all of an option.

    Raises:
        UsageError: There is none of this name.
    """
    from metal_gen.cli.output.option_page import (
        every_option,
        find_options,
        option_words,
        render_options,
        setting_named,
    )
    from metal_gen.cli.terminal.tables import print_rendered

    if len(words) == 1:
        found = find_options(words[0], program, root)
        setting = setting_named(found[0].param.name if found else words[0])
        if found or setting is not None:
            print_rendered(lambda width: render_options(found, setting), console)
            return
        if words[0] in HINTS:
            raise UsageError(f"no such option: {words[0]}", HINTS[words[0]])
    options = option_words(list(every_option(program, root)))
    names = list(dict.fromkeys((*topics(), *ALIASES, *program.commands, *options)))
    near = get_close_matches(words[0], names, n=1)
    hint = f"did you mean {near[0]}?" if near else "metal-gen help lists what there is"
    raise UsageError(f"there is no help on {' '.join(words)}", hint)


def _list_topics(console: Console) -> None:
    from metal_gen.cli.terminal.tables import Column, print_rendered, rows_table

    columns = (Column("topic"), Column("about"))
    rows = [(name, _heading(path.read_text(encoding="utf-8"))) for name, path in topics().items()]
    print_rendered(lambda width: rows_table(columns, rows, width), console)
    console.detail("metal-gen help TOPIC shows a page; metal-gen help top-p explains an option")


def _print_topic(text: str, console: Console) -> None:
    if not console.stdout_is_terminal:
        console.write_text(text)
        return

    from rich.markdown import Markdown

    from metal_gen.cli.terminal.tables import print_rendered

    print_rendered(lambda width: Markdown(text), console)
