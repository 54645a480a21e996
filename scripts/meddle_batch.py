#!/usr/bin/env python3
"""Disturbs the output of a batch while it is written, as other programs might.

    python scripts/meddle_batch.py --trials 50

At random moments the output is cut, extended, replaced, renamed or removed, the files next to it are deleted,
and a second run is started. No run may succeed with missing or repeated records, and `--resume` must restore
all of them.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

OUTPUT = "out.jsonl"
HELD = 8
FAILED = 1


def cut(path: Path, chance: random.Random) -> int:
    """Cut off part of the end; return the exit code that the batch must have."""
    os.truncate(path, chance.randrange(path.stat().st_size))
    return FAILED


def add(path: Path, chance: random.Random) -> int:
    """Append half a record, or existing whole ones."""
    with path.open("ab") as file:
        file.write(chance.choice([b'{"id": "torn', path.read_bytes()]))
    return FAILED


def replace(path: Path, chance: random.Random) -> int:
    """Replace the output by a copy, as an editor does."""
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes())
    copy.replace(path)
    return FAILED


def rename(path: Path, chance: random.Random) -> int:
    """Rename the output."""
    path.rename(path.with_name("renamed"))
    return FAILED


def remove(path: Path, chance: random.Random) -> int:
    """Delete the output."""
    path.unlink()
    return FAILED


def clean(path: Path, chance: random.Random) -> int:
    """Delete all dot files."""
    for beside in path.parent.glob(".*"):
        beside.unlink()
    return 0


def begin_second(path: Path, chance: random.Random) -> int:
    """Start a second run."""
    code = start(path.parent, OUTPUT).wait()
    if code != HELD:
        raise SystemExit(f"a second run ended with {code}")
    return 0


def clean_and_begin_second(path: Path, chance: random.Random) -> int:
    """Delete all dot files, and start a second run."""
    clean(path, chance)
    return begin_second(path, chance)


MEDDLING: list[Callable[[Path, random.Random], int]] = [
    *(cut, add, replace, rename, remove),
    *(clean, begin_second, clean_and_begin_second),
]


def main() -> int:
    """Run the trials, print the result, and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0, help="of what is done, and when")
    arguments = parser.parse_args()
    chance, wrong = random.Random(arguments.seed), 0
    with tempfile.TemporaryDirectory() as name:
        whole = Path(name) / "whole"
        write_rows(whole, arguments.rows)
        start(whole, OUTPUT).wait()
        expected, size = texts(whole / OUTPUT), (whole / OUTPUT).stat().st_size
        for trial in range(arguments.trials):
            folder = Path(name) / str(trial)
            write_rows(folder, arguments.rows)
            # Early enough for a second run to start while rows remain.
            problem = try_once(
                folder, MEDDLING[trial % len(MEDDLING)], int(size * chance.uniform(0.02, 0.5)), chance
            )
            if problem is None and texts(folder / OUTPUT) != expected:
                problem = "other records than those of a batch that is left alone"
            if problem is not None:
                wrong += 1
                print(f"trial {trial}, {MEDDLING[trial % len(MEDDLING)].__name__}: {problem}")
    print(f"{arguments.trials} trials: {wrong} went wrong")
    return 1 if wrong else 0


def try_once(
    folder: Path, meddle: Callable[[Path, random.Random], int], size: int, chance: random.Random
) -> str | None:
    """Disturb the batch once the output has `size` bytes; return what went wrong, if anything."""
    process, path = start(folder, OUTPUT), folder / OUTPUT
    while process.poll() is None and not (path.exists() and path.stat().st_size > size):
        time.sleep(0.001)
    expected_code = meddle(path, chance)
    if (code := process.wait()) != expected_code:
        return f"it ended with {code}, and should with {expected_code}"
    if (code := start(folder, OUTPUT).wait()) != 0:
        return f"--resume ended with {code}"
    left = [each.name for each in folder.glob(".*") if each.name != f".{OUTPUT}.run.json"]
    return f"left behind: {left}" if left else None


def write_rows(folder: Path, count: int) -> None:
    """Create a folder with an input."""
    folder.mkdir()
    rows = [{"id": number, "prompt": f"Tell me story {number}."} for number in range(count)]
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def start(folder: Path, output: str) -> "subprocess.Popen[bytes]":
    """Start or resume a batch on the bundled model."""
    command = [sys.executable, "-m", "metal_gen", "batch", "in.jsonl", "-o", output, "--resume"]
    return subprocess.Popen(
        [*command, "-n", "8", "--seed", "1", "-q"],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def texts(path: Path) -> dict[int, str]:
    """Return the text of each row.

    Raises:
        ValueError: A row occurs twice.
    """
    records = [json.loads(line) for line in path.read_text().splitlines()]
    by_id = {record["id"]: record["text"] for record in records}
    if len(by_id) != len(records):
        raise ValueError(f"{len(records) - len(by_id)} rows of {path} are there twice")
    return by_id


if __name__ == "__main__":
    sys.exit(main())
