#!/usr/bin/env python3
"""Kills runs that write the prefix cache, while others read it, and compares every text.

    python scripts/kill_prefix_cache.py --kills 200

The kills are SIGKILL at random moments. No text may change, no entry may be damaged, and when a last run has
ended nothing but entries is left.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

# Moments are drawn from the start of a run to its usual end.
USUAL_RUN_S = 1.0
RULES = [" ".join(f"{word} {number}" for number in range(60)) for word in ("rule", "law", "line", "word")]


def main() -> int:
    """Run all, print what came of it, and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        expected = [text_of(begin(folder, rules, cache=False)) for rules in RULES]
        kills = wrong = 0
        while kills < arguments.kills:
            place = chance.randrange(len(RULES))
            if chance.random() < 0.2:
                run_cache(folder, "rm", "--all")
            writer, reader = begin(folder, RULES[place]), begin(folder, RULES[place])
            try:
                writer.wait(chance.uniform(0, USUAL_RUN_S))
            except subprocess.TimeoutExpired:
                writer.kill()
                writer.communicate()
                kills += 1
            wrong += text_of(reader) != expected[place]
        for rules, text in zip(RULES, expected, strict=True):
            wrong += text_of(begin(folder, rules)) != text
        is_whole = run_cache(folder, "verify") == 0
        left = [path.name for path in Path(folder).rglob("*.part")]
    print(
        f"{kills} kills: {wrong} texts differ, entries are {'whole' if is_whole else 'DAMAGED'}, left: {left}"
    )
    return 0 if is_whole and not wrong and not left else 1


def environment(folder: str) -> dict[str, str]:
    """Keep the prefix cache in a folder of its own."""
    settings = {"METAL_GEN_PREFIX_CACHE_DIR": folder, "METAL_GEN_PREFIX_CACHE_MIN_TOKENS": "64"}
    return {**os.environ, **settings}


def begin(folder: str, rules: str, *, cache: bool = True) -> "subprocess.Popen[bytes]":
    """Start a run on the bundled model."""
    command = [sys.executable, "-m", "metal_gen", "generate", "Tell me a story.", "--system", rules, "-q"]
    more = ["-n", "16", "--temperature", "0", "--prefix-cache" if cache else "--no-prefix-cache"]
    return subprocess.Popen(
        [*command, *more], env=environment(folder), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )


def text_of(process: "subprocess.Popen[bytes]") -> bytes:
    """Wait for a run and return its text.

    Raises:
        RuntimeError: It failed.
    """
    text, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"a run ended with code {process.returncode}")
    return text


def run_cache(folder: str, *arguments: str) -> int:
    """Run `metal-gen cache` and return its exit code."""
    command = [sys.executable, "-m", "metal_gen", "cache", *arguments]
    done = subprocess.run(command, env=environment(folder), capture_output=True, check=False)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
