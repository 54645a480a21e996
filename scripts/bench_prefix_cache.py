#!/usr/bin/env python3
"""Measures whole runs with a stored prefix and without one, in turns.

    python scripts/bench_prefix_cache.py MODEL --prefix-tokens 1024 --repeats 5
    python scripts/bench_prefix_cache.py MODEL --misses --new-tokens 128
    python scripts/bench_prefix_cache.py MODEL --lookups 10000

Each run is a process of its own. The first form generates one token, and shows how much sooner it comes from
a stored prefix. The second shows what the cache costs when it has nothing for a prompt: `stores` writes the
prefix, `finds nothing` has none that is worth storing. Times are by the clock, and in brackets of the
processor, which other programs disturb less. The prefix is a text of numbers. The third form looks for
prompts that are not stored, among so many entries.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

# No prompt is as long, so nothing is stored.
STORES_NOTHING = {"METAL_GEN_PREFIX_CACHE_MIN_TOKENS": str(2**30)}


@dataclass
class Kind:
    """Runs that are alike, with their times.

    Attributes:
        name: What they do.
        cache: Whether they use the prefix cache.
        is_cold: Whether the cache is emptied before each.
        environment: Variables.
    """

    name: str
    cache: bool
    is_cold: bool = False
    environment: dict[str, str] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    processor_s: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        seconds, processor_s = statistics.median(self.seconds), statistics.median(self.processor_s)
        return f"{self.name}: {seconds:.2f} s ({processor_s:.2f} s)"


def main() -> int:
    """Measure, print the medians and their ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--prefix-tokens", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--misses", action="store_true")
    parser.add_argument("--lookups", type=int, metavar="ENTRIES")
    parser.add_argument("--new-tokens", type=int, default=1)
    parser.add_argument("options", nargs="*", help="of generate, after --")
    arguments = parser.parse_args()
    if arguments.lookups is not None:
        look_up(arguments.model, arguments.lookups)
        return 0
    without = Kind("without", cache=False)
    kinds = [without, Kind("stored", cache=True)]
    if arguments.misses:
        kinds = [without, Kind("stores", cache=True, is_cold=True)]
        kinds.append(Kind("finds nothing", cache=True, is_cold=True, environment=STORES_NOTHING))
    with tempfile.TemporaryDirectory() as folder:
        prefix, stored = Path(folder) / "prefix.txt", Path(folder) / "stored"
        prefix.write_text(numbers(arguments.model, arguments.prefix_tokens))
        command = [arguments.model, str(prefix), str(stored), "-n", str(arguments.new_tokens)]
        for kind in kinds:
            run(Kind("first", kind.cache), *command, *arguments.options)
        usage = {}
        for number in range(arguments.repeats):
            for kind in kinds if number % 2 else reversed(kinds):
                usage[kind.name] = run(kind, *command, *arguments.options)
    counts = usage[kinds[1].name]
    print(
        f"{counts['prompt_tokens']} prompt tokens, {counts['cached_tokens']} of them stored; "
        f"{counts['completion_tokens']} new tokens; {arguments.repeats} runs of each, in turns"
    )
    print(without)
    for kind in kinds[1:]:
        ratios = [
            f"{statistics.median([a / b for a, b in zip(one, other, strict=True)]):.3f}"
            for one, other in ((without.seconds, kind.seconds), (without.processor_s, kind.processor_s))
        ]
        print(f"{kind}; without takes {ratios[0]} times as long ({ratios[1]})")
    return 0 if bool(counts["cached_tokens"]) is not arguments.misses else 1


def numbers(model: str, tokens: int) -> str:
    """Return a text of about as many tokens, counted with the model's own tokenizer."""
    from metal_gen.checkpoint.checkpoint import Checkpoint
    from metal_gen.hub.locate import locate_checkpoint

    tokenizer = Checkpoint(locate_checkpoint(model)).tokenizer
    words = [f"number {number}" for number in range(tokens)]
    while len(tokenizer.encode(", ".join(words), add_special_tokens=False)) > tokens:
        words = words[: len(words) * 15 // 16]
    return ", ".join(words) + ".\n"


def run(kind: Kind, model: str, prefix: str, stored: str, *options: str) -> dict[str, int]:
    """Run `generate` once; keep its times, and return what it says of its tokens."""
    command = [sys.executable, "-m", "metal_gen", "generate", "Which is the largest?", "-m", model, "--json"]
    command += ["-q", "--seed", "1", "--prefix-file", prefix, *options]
    command.append("--prefix-cache" if kind.cache else "--no-prefix-cache")
    environment = {**os.environ, "METAL_GEN_PREFIX_CACHE_DIR": stored, **kind.environment}
    if kind.is_cold:
        shutil.rmtree(stored, ignore_errors=True)
    begin_s, begin_processor_s = time.perf_counter(), _processor_s()
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    kind.seconds.append(time.perf_counter() - begin_s)
    kind.processor_s.append(_processor_s() - begin_processor_s)
    usage: dict[str, int] = json.loads(done.stdout)["usage"]
    return usage


def look_up(model: str, entries: int) -> None:
    """Print how long it takes to find that prompts of several lengths are not stored."""
    import metal_gen
    from metal_gen.text.encoded_prompt import Prompt

    with tempfile.TemporaryDirectory() as folder:
        loaded = metal_gen.load(model, prefix_cache=True, prefix_cache_dir=folder)
        assert loaded.prefixes is not None
        [models] = Path(folder).iterdir()
        for _ in range(entries):
            (models / f"{os.urandom(16).hex()}.safetensors").touch()
        for tokens in (1024, 8192, 32768):
            times, processor = [], []
            for _ in range(20):
                prompt = Prompt(list(range(tokens)))
                begin_s, begin_processor_s = time.perf_counter(), time.process_time()
                loaded.prefixes.find(prompt, loaded.decoder.cache)
                loaded.prefixes.boundary(prompt)
                times.append(1000 * (time.perf_counter() - begin_s))
                processor.append(1000 * (time.process_time() - begin_processor_s))
            print(
                f"{tokens} tokens among {entries} entries: {statistics.median(times):.2f} ms "
                f"({statistics.median(processor):.2f} ms of the processor)"
            )


def _processor_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    sys.exit(main())
