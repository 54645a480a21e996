#!/usr/bin/env python3
"""Kills a batch again and again, resumes it each time, and compares the output with an undisturbed run.

    python scripts/kill_batch.py --kills 50

The kills are SIGKILL at random moments. Every row must be in the output once, with the same text.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

SLOWEST_START_S = 1.2


def main() -> int:
    """Run both batches, print the result, and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [{"id": number, "prompt": f"Tell me story {number}."} for number in range(arguments.rows)]
        (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        run(folder, "whole.jsonl").wait()
        expected = texts(folder / "whole.jsonl")
        chance, kills, turns = random.Random(arguments.seed), 0, 0
        while True:
            process = run(folder, "killed.jsonl", "--resume")
            turns += 1
            try:
                process.wait(chance.uniform(0.2, SLOWEST_START_S) if kills < arguments.kills else None)
                break
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                kills += 1
        found = texts(folder / "killed.jsonl")
    same = found == expected and len(found) == arguments.rows and kills == arguments.kills
    verdict = "all equal" if same else "NOT equal"
    print(f"{kills} kills in {turns} runs: {len(found)} of {arguments.rows} rows, {verdict}")
    return 0 if same else 1


def run(folder: Path, output: str, *more: str) -> "subprocess.Popen[bytes]":
    """Start a batch on the bundled model."""
    command = [sys.executable, "-m", "metal_gen", "batch", "in.jsonl", "-o", output, "-n", "8", "--seed", "1"]
    return subprocess.Popen([*command, "-q", *more], cwd=folder, stdin=subprocess.DEVNULL)


def texts(path: Path) -> dict[int, str]:
    """Return the text of each row.

    Raises:
        ValueError: A row occurs twice.
    """
    records = [json.loads(line) for line in path.read_text().splitlines()]
    by_id = {record["id"]: record["text"] for record in records}
    if len(by_id) != len(records):
        raise ValueError(f"{len(records) - len(by_id)} rows of {path.name} are there twice")
    return by_id


if __name__ == "__main__":
    sys.exit(main())
