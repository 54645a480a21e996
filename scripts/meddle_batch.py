#!/usr/bin/env python3
"""Does to the output of a batch, while it is written, what other programs might do to it.

    python scripts/meddle_batch.py --trials 50

It is cut, added to, replaced, renamed or removed at random moments; what lies beside it is taken away, and a
second run is begun. No run may end well with records missing or doubled, and `--resume` has to bring all.
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
    """Take some of the end away; returns the exit code that the batch must have."""
    os.truncate(path, chance.randrange(path.stat().st_size))
    return FAILED


def add(path: Path, chance: random.Random) -> int:
    """Add half a record, or whole ones that are there already."""
    with path.open("ab") as file:
        file.write(chance.choice([b'{"id": "torn', path.read_bytes()]))
    return FAILED


def replace(path: Path, chance: random.Random) -> int:
    """Put a copy in its place, as an editor does."""
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes())
    copy.replace(path)
    return FAILED


def rename(path: Path, chance: random.Random) -> int:
    """Give it another name."""
    path.rename(path.with_name("renamed"))
    return FAILED


def remove(path: Path, chance: random.Random) -> int:
    """Take it away."""
    path.unlink()
    return FAILED


def clean(path: Path, chance: random.Random) -> int:
    """Take all dot files away."""
    for beside in path.parent.glob(".*"):
        beside.unlink()
    return 0


def begin_second(path: Path, chance: random.Random) -> int:
    """Begin a second run."""
    code = start(path.parent, OUTPUT).wait()
    if code != HELD:
        raise SystemExit(f"a second run ended with {code}")
    return 0


def clean_and_begin_second(path: Path, chance: random.Random) -> int:
    """Take all dot files away, and begin a second run."""
    clean(path, chance)
    return begin_second(path, chance)


MEDDLING: list[Callable[[Path, random.Random], int]] = [
    *(cut, add, replace, rename, remove),
    *(clean, begin_second, clean_and_begin_second),
]


def main() -> int:
    """Run the trials, print what came of them, and return the exit code."""
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
            # Early enough for a second run to begin while there is work.
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
    """Meddle when there are so many bytes; returns what went wrong until all is there, if anything did."""
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
    """Make a folder with an input."""
    folder.mkdir()
    rows = [{"id": number, "prompt": f"Tell me story {number}."} for number in range(count)]
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def start(folder: Path, output: str) -> "subprocess.Popen[bytes]":
    """Start a batch on the bundled model, or go on with it."""
    command = [sys.executable, "-m", "metal_gen", "batch", "in.jsonl", "-o", output, "--resume"]
    return subprocess.Popen(
        [*command, "-n", "8", "--seed", "1", "-q"],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def texts(path: Path) -> dict[int, str]:
    """The text of each row.

    Raises:
        ValueError: A row is there twice.
    """
    records = [json.loads(line) for line in path.read_text().splitlines()]
    by_id = {record["id"]: record["text"] for record in records}
    if len(by_id) != len(records):
        raise ValueError(f"{len(records) - len(by_id)} rows of {path} are there twice")
    return by_id


if __name__ == "__main__":
    sys.exit(main())
