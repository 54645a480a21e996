"""Writes the manual as man pages: metal-gen(1), and metal-gen-TOPIC(7) for every page.

    python scripts/man_pages.py FOLDER

The wheel includes them; its build runs this script.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parent.parent
MANUAL = ROOT / "metal_gen" / "manual"
NAME = "metal-gen"
SUMMARY = "stream text from Qwen models on MLX"
INTRODUCTION = f"""
## SYNOPSIS

`{NAME}` COMMAND [OPTIONS]

## DESCRIPTION

{NAME} runs Qwen models on MLX from a shell, a pipe or cron. It writes the text to stdout and everything else
to stderr. It allocates its memory once, after checking that it fits. `{NAME} help` shows the manual too.
"""
# Characters that roff would interpret as a command or as a typographic sign.
NAMED = {"\\": "\\e", "-": "\\-", "'": "\\(aq", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti"}
SPACES = re.compile(r"\s+")


def write_pages(folder: Path) -> list[Path]:
    """Write all pages into a folder, creating it if necessary; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    topics = {path.stem: path.read_text(encoding="utf-8") for path in sorted(MANUAL.glob("*/*.md"))}
    pages = {f"{NAME}.1": program_page(topics)}
    for topic, text in topics.items():
        pages[f"{NAME}-{topic}.7"] = topic_page(topic, text)
    for name, page in pages.items():
        (folder / name).write_text(page, encoding="utf-8")
    return [folder / name for name in pages]


def program_page(topics: dict[str, str]) -> str:
    """Return metal-gen(1): its commands and exit codes, and the names of all other pages."""
    others = ", ".join(f"**{NAME}-{topic}**(7)" for topic in topics)
    parts = (
        INTRODUCTION,
        _as_section(topics["commands"]),
        _as_section(topics["exit-codes"]),
        f"## SEE ALSO\n\n{others}",
    )
    return _page(NAME, 1, SUMMARY, "\n".join(parts))


def topic_page(topic: str, text: str) -> str:
    """Return metal-gen-TOPIC(7) for a page of the manual."""
    title, _, body = text.partition("\n")
    title = title.lstrip("# ")
    return _page(f"{NAME}-{topic}", 7, f"{title[0].lower()}{title[1:]}", f"## DESCRIPTION\n{body}")


def _as_section(text: str) -> str:
    """Turn a page's title into a section of the page that it becomes a part of."""
    return "#" + re.sub("^#(?=#)", "##", text, flags=re.MULTILINE)


def _page(name: str, section: int, summary: str, body: str) -> str:
    tokens = MarkdownIt("commonmark").enable("table").parse(body)
    lines = [
        f'.TH "{name.upper()}" {section} "" "{NAME}" "{NAME} manual"',
        ".SH NAME",
        f"{_escaped(name)} \\- {_escaped(summary)}",
        *_blocks(tokens),
    ]
    return "\n".join(lines) + "\n"


def _blocks(tokens: Sequence[Token]) -> Iterator[str]:
    """Yield the lines of roff for Markdown's blocks."""
    markers: list[str | int] = []  # Markers of the lists around an item: a bullet, or the next number.
    place = 0
    while place < len(tokens):
        token = tokens[place]
        if token.type == "heading_open":
            place += 1
            is_section = token.tag == "h2"
            yield f"{'.SH' if is_section else '.SS'} {_inline(tokens[place], in_capitals=is_section)}"
        elif token.type in ("bullet_list_open", "ordered_list_open"):
            yield from [".RS 2"] * bool(markers)
            markers.append("\\(bu" if token.type == "bullet_list_open" else 1)
        elif token.type in ("bullet_list_close", "ordered_list_close"):
            markers.pop()
            yield from [".RE"] * bool(markers)
        elif token.type == "list_item_open":
            marker = markers[-1]
            yield f".IP {marker if isinstance(marker, str) else f'{marker}.'} 3"
            markers[-1] = marker + 1 if isinstance(marker, int) else marker
        elif token.type == "paragraph_open":
            if tokens[place - 1].type != "list_item_open":
                yield ".IP" if markers else ".PP"
            place += 1
            yield _inline(tokens[place])
        elif token.type in ("fence", "code_block"):
            yield from (
                ".PP",
                ".RS 4",
                ".nf",
                *map(_guarded, token.content.rstrip("\n").split("\n")),
                ".fi",
                ".RE",
            )
        elif token.type == "table_open":
            end = next(at for at in range(place, len(tokens)) if tokens[at].type == "table_close")
            yield from _table(tokens[place:end])
            place = end
        place += 1


def _table(tokens: Sequence[Token]) -> Iterator[str]:
    """Yield a table as a list: the first cell of each row, and the others below it.

    From the third on, a cell comes with the name of its column.
    """
    cells = [_inline(token) for token in tokens if token.type == "inline"]
    width = sum(token.type == "th_open" for token in tokens)
    for at in range(width, len(cells), width):
        first, *others = cells[at : at + width]
        for place in range(1, len(others)):
            others[place] = others[place] and f"{cells[place + 1]}: {others[place]}"
        yield from (".TP", first or "\\&", "; ".join(filter(None, others)) or "\\&")


def _inline(token: Token, *, in_capitals: bool = False) -> str:
    """Return a paragraph's text in one line, with roff's changes of font."""
    fonts = {"strong_open": "\\fB", "strong_close": "\\fR", "em_open": "\\fI", "em_close": "\\fR"}
    text = ""
    for child in token.children or ():
        content = _escaped(child.content.upper() if in_capitals else child.content)
        if child.type == "text":
            text += content
        elif child.type == "code_inline":
            text += f"\\fB{content}\\fR"
        elif child.type in ("softbreak", "hardbreak"):
            text += " "
        elif child.type == "link_close" or child.type == "image":
            continue
        else:
            text += fonts.get(child.type, "")
    return _guarded_line(SPACES.sub(" ", text))


def _escaped(text: str) -> str:
    """Write what roff would change, or may not know, by its name."""
    return "".join(
        NAMED.get(letter) or (letter if letter.isascii() else f"\\[u{ord(letter):04X}]") for letter in text
    )


def _guarded(line: str) -> str:
    return _guarded_line(_escaped(line))


def _guarded_line(line: str) -> str:
    """Keep roff from taking a line for one of its requests."""
    return f"\\&{line}" if line.startswith((".", "'")) else line


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} FOLDER")
    for written in write_pages(Path(sys.argv[1])):
        print(written)
