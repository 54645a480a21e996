"""Copies the README's sections into metal_gen/manual/, where `metal-gen help` reads them.

A file is a section up to the next heading; its first line says which. A test compares the two.
"""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "metal_gen" / "manual"


def sections() -> dict[Path, str]:
    """The files that there are, and what belongs into each."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    return {
        path: _section(readme, path.read_text(encoding="utf-8").splitlines()[0])
        for path in FOLDER.glob("*.md")
    }


def _section(readme: str, heading: str) -> str:
    found = re.search(rf"^{re.escape(heading)}\n.*?(?=^##)", readme, re.MULTILINE | re.DOTALL)
    if found is None:
        raise SystemExit(f"the README has no section {heading}")
    return found[0].rstrip() + "\n"


if __name__ == "__main__":
    for path, text in sections().items():
        path.write_text(text, encoding="utf-8")
