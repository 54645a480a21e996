#!/usr/bin/env python3
"""Measures whole runs up to their first token, with a stored prefix and without one, in turns.

    python scripts/bench_prefix_cache.py MODEL --prefix-tokens 1024 --repeats 5

Each run is a process of its own, which generates one token. The prefix is a text of numbers.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> int:
    """Measure, print the medians and their ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--prefix-tokens", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("options", nargs="*", help="of generate, after --")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        prefix = Path(folder) / "prefix.txt"
        prefix.write_text(numbers(arguments.model, arguments.prefix_tokens))
        common = [arguments.model, str(prefix), folder, *arguments.options]
        run(*common, cache=True)
        times: dict[bool, list[float]] = {True: [], False: []}
        cached = 0
        for _ in range(arguments.repeats):
            for cache in (False, True):
                seconds, usage = run(*common, cache=cache)
                times[cache].append(seconds)
                cached = max(cached, usage["cached_tokens"])
    without, stored = (statistics.median(times[cache]) for cache in (False, True))
    print(
        f"{usage['prompt_tokens']} prompt tokens, {cached} of them stored; {arguments.repeats} runs in turns"
    )
    print(f"without {without:.2f} s, stored {stored:.2f} s: {without / stored:.1f} times sooner")
    return 0 if cached else 1


def numbers(model: str, tokens: int) -> str:
    """Return a text of about as many tokens, counted with the model's own tokenizer."""
    from metal_gen.checkpoint.checkpoint import Checkpoint
    from metal_gen.hub.locate import locate_checkpoint

    tokenizer = Checkpoint(locate_checkpoint(model)).tokenizer
    words = [f"number {number}" for number in range(tokens)]
    while len(tokenizer.encode(", ".join(words), add_special_tokens=False)) > tokens:
        words = words[: len(words) * 15 // 16]
    return ", ".join(words) + ".\n"


def run(model: str, prefix: str, folder: str, *options: str, cache: bool) -> tuple[float, dict[str, int]]:
    """Run `generate` once; return its seconds and what it says of its tokens."""
    command = [sys.executable, "-m", "metal_gen", "generate", "Which is the largest?", "-m", model, "--json"]
    command += ["-q", "-n", "1", "--prefix-file", prefix, *options]
    command.append("--prefix-cache" if cache else "--no-prefix-cache")
    environment = {**os.environ, "METAL_GEN_PREFIX_CACHE_DIR": folder}
    begin_s = time.perf_counter()
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    return time.perf_counter() - begin_s, json.loads(done.stdout)["usage"]


if __name__ == "__main__":
    sys.exit(main())
