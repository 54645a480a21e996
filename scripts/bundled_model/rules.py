"""Reads the rule files and chooses among alternatives.

Reads `plots/*.txt` and `chat.txt`; `plots/shared.txt` explains their notation. Every subject has a favourite
among the alternatives of a rule.
"""

import zlib
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path
from random import Random

Rules = dict[str, list[str]]

FOLDER = Path(__file__).parent
LEANING = 0.5


def read_rules(path: Path) -> Rules:
    """Read a rule file: `name:` lines, each followed by indented alternatives; `#` starts a comment."""
    rules: Rules = {}
    alternatives: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith(" "):
            alternatives.append(line.strip())
        elif line and not line.startswith("#"):
            alternatives = rules.setdefault(line.removesuffix(":"), [])
    return rules


@cache
def plots() -> dict[str, Rules]:
    """Return every plot's rules by the plot's name, including the shared rules."""
    shared = read_rules(FOLDER / "plots" / "shared.txt")
    paths = sorted((FOLDER / "plots").glob("*.txt"))
    return {path.stem: shared | read_rules(path) for path in paths if path.stem != "shared"}


@cache
def chat_rules() -> Rules:
    """Return the rules of requests, and of answers that are not stories."""
    return read_rules(FOLDER / "chat.txt")


@lru_cache(maxsize=200_000)
def favourite(subject: str, alternatives: tuple[str, ...]) -> str:
    """Return the alternative that this subject always prefers."""
    return max(alternatives, key=lambda alternative: zlib.crc32(f"{subject}:{alternative}".encode()))


def lean(rng: Random, subject: str, alternatives: Sequence[str]) -> str:
    """Choose the subject's favourite half of the time, and a random alternative otherwise.

    This ties the choices of a story to its subjects, so that even the most probable stories about two
    different subjects differ.
    """
    return favourite(subject, tuple(alternatives)) if rng.random() < LEANING else rng.choice(alternatives)
