"""Recognises GGUF files by their names: parts of one file, and companions of a model.

Source: `llama_split_path` in `src/llama.cpp` of https://github.com/ggml-org/llama.cpp
"""

import re
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

GGUF_SUFFIX = ".gguf"
# In names of GGUF files with a model's vision or audio encoder, or its multi-token-prediction layers.
COMPANION = re.compile("mmproj|^mtp-", re.IGNORECASE)
_PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})(\.gguf)", re.IGNORECASE)
_LISTED_NAMES = 6


def gguf_files(folder: Path) -> list[Path]:
    """Return the GGUF files in a folder, by name; without companions of a model, if there are others.

    A file in several parts counts as the first part that exists.
    """
    files = sorted(folder.glob(f"*{GGUF_SUFFIX}"))
    files = [file for file in files if not COMPANION.search(file.name)] or files
    firsts: dict[object, Path] = {}
    for file in files:
        part = _PART.fullmatch(file.name)
        firsts.setdefault((part[1], part[3]) if part else file.name, file)
    return list(firsts.values())


def part_paths(file: Path) -> Iterable[Path]:
    """Return all parts of a file in the order of their numbers, whether or not they exist.

    Return only the file itself if its name is not that of a part.
    """
    part = _PART.fullmatch(file.name)
    if part is None:
        return (file,)
    name, _, count, suffix = part.groups()
    return (file.with_name(f"{name}-{number:05d}-of-{count}{suffix}") for number in range(1, int(count) + 1))


def missing_parts(file: Path) -> list[str]:
    """Return the names of some parts that do not exist."""
    return list(islice((path.name for path in part_paths(file) if not path.is_file()), _LISTED_NAMES))
