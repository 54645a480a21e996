"""Example commands at the end of a help text, broken so that they can be pasted into a shell."""

import re
from collections.abc import Iterator, Sequence

HEADING = "Examples:"
# A terminal with 80 columns, minus the margins of typer's panels.
COLUMNS = 76
INDENT = 4 * " "
CONTINUED = " \\"
PIPE = "|"
# Quoted text is not broken.
WORD = re.compile(r"""(?:"[^"]*"|'[^']*'|[^\s"'])+""")


def epilog(*examples: str) -> str:
    """Return the end of a command's help: a heading, and a paragraph per command."""
    return "\n\n".join((HEADING, *(broken(example, COLUMNS) for example in examples)))


def examples_in(epilog: str) -> list[str]:
    """Return the commands of an epilog, each on one line again."""
    return [re.sub(r" \\\n *", " ", text) for text in epilog.split("\n\n")[1:]]


def broken(command: str, width: int) -> str:
    """Break a command with backslashes if it is wider than `width` columns.

    An option stays with its value if possible. A word that is wider than a line stays whole.
    """
    lines: list[str] = []
    line = ""
    for part in _parts(WORD.findall(command), width - len(INDENT) - len(CONTINUED)):
        if line and len(line) + len(part) + len(CONTINUED) + 1 > width:
            lines.append(line + CONTINUED)
            line = INDENT + part
        else:
            line = f"{line} {part}" if line else part
    whole = "\n".join([*lines, line])
    return command if len(command) <= width else whole


def _parts(words: Sequence[str], width: int) -> Iterator[str]:
    """Yield the words; an option with its value, and the end of a pipe, are one part if a line holds them."""
    if PIPE in words:
        place = len(words) - 1 - words[::-1].index(PIPE)
        end = " ".join(words[place:])
        if place and len(end) <= width:
            yield from _parts(words[:place], width)
            yield end
            return
    option = ""
    for word in words:
        if option and not re.match(r"[-|<>&]", word) and len(option) + 1 + len(word) <= width:
            yield f"{option} {word}"
            option = ""
            continue
        if option:
            yield option
            option = ""
        if word.startswith("-") and word != "-":
            option = word
        else:
            yield word
    if option:
        yield option
