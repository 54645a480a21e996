"""Copies the README's sections into metal_gen/manual/, where `metal-gen help` reads them.

A file is a section up to the next heading, of any level; its first line says which. A section without a file
gets one, named after its heading; a file whose section is gone is deleted. A test compares the two.
"""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "metal_gen" / "manual"
SECTION = re.compile(r"^(##+ [^\n]+)\n.*?(?=^##|\Z)", re.MULTILINE | re.DOTALL)
FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)


def sections() -> dict[Path, str]:
    """The files that there should be, and what belongs into each."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    # A comment in a block of code is no heading.
    hidden = FENCE.sub(lambda block: block[0].replace("\n#", "\n\0"), readme)
    named = {path.read_text(encoding="utf-8").partition("\n")[0]: path for path in FOLDER.glob("*.md")}
    return {
        named.get(found[1], FOLDER / f"{topic_of(found[1])}.md"): found[0].replace("\0", "#").rstrip() + "\n"
        for found in SECTION.finditer(hidden)
    }


def topic_of(heading: str) -> str:
    """What a section is called after its heading: `## In the shell` is `in-the-shell`."""
    return "-".join(re.findall(r"[a-z0-9]+", heading.lower()))


if __name__ == "__main__":
    wanted = sections()
    for path in set(FOLDER.glob("*.md")) - set(wanted):
        path.unlink()
    for path, text in wanted.items():
        path.write_text(text, encoding="utf-8")
