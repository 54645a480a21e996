"""`metal-gen help`: a section of the README, or the help of a command or an option."""

from pathlib import Path
from typing import Annotated, Any

import typer

from metal_gen.cli.terminal.console import Console
from metal_gen.config.sources import nearest
from metal_gen.errors import UsageError

# For its help.
EXAMPLES = ("metal-gen help", "metal-gen help samplers", "metal-gen help models pull")
# Other words for a subject.
ALIASES = {
    **dict.fromkeys(("sampling", "sampler", "strategy", "strategies"), "samplers"),
    **dict.fromkeys(("memory", "kv-cache", "kv_cache"), "cache"),
    **dict.fromkeys(("batches", "batching"), "batch"),
    **dict.fromkeys(("model", "download", "downloads"), "models"),
    **dict.fromkeys(("exit", "exits", "exit-code", "exit_codes", "code", "codes", "errors"), "exit-codes"),
    **dict.fromkeys(("adapters", "adapter", "lora", "gguf", "yarn"), "models"),
    **dict.fromkeys(("quantize", "quantization", "bits"), "cache"),
    **dict.fromkeys(("setting", "configuration", "variables", "environment"), "settings"),
}
# A subject a file, each a section of the README.
FOLDER = Path(__file__).resolve().parents[2] / "manual"


def topics() -> dict[str, Path]:
    """The files, by subject."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.md"))}


def _complete_topic(incomplete: str) -> list[str]:
    return [name for name in topics() if name.startswith(incomplete)]


def help(
    context: typer.Context,
    topic: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TOPIC]",
            help="Name a subject, a command or an option",
            autocompletion=_complete_topic,
            show_default="a list of subjects",
        ),
    ] = None,
) -> None:
    """Explain a subject such as samplers or exit-codes, a command, or an option such as top-p."""
    console = Console()
    console.require_stdout()
    subject = ALIASES.get(topic[0], topic[0]) if topic and len(topic) == 1 else None
    if not topic:
        _list_topics(console)
    elif subject in topics():
        _print_topic(topics()[subject].read_text(encoding="utf-8"), console)
    else:
        _print_command_help(context, topic)


def _list_topics(console: Console) -> None:
    from metal_gen.cli.terminal.tables import Column, print_rendered, rows_table

    columns = (Column("topic"), Column("about"))
    texts = {name: path.read_text(encoding="utf-8") for name, path in topics().items()}
    rows = [(name, text.splitlines()[0].removeprefix("## ")) for name, text in texts.items()]
    print_rendered(lambda width: rows_table(columns, rows, width), console)
    console.detail("metal-gen help TOPIC explains one, metal-gen COMMAND --help a command")


def _print_topic(text: str, console: Console) -> None:
    if not console.stdout_is_terminal:
        console.write_text(text)
        return

    from rich.markdown import Markdown

    from metal_gen.cli.terminal.tables import print_rendered

    print_rendered(lambda width: Markdown(text), console)


def _print_command_help(context: typer.Context, words: list[str]) -> None:
    root = context.find_root()
    program: Any = root.command
    names = list(dict.fromkeys((*topics(), *program.list_commands(root))))
    if words[0] not in names:
        raise UsageError(f"there is no help on {' '.join(words)}", nearest(words[0], names))
    with program.make_context(root.info_name, [*words, "--help"]) as asked:
        program.invoke(asked)
