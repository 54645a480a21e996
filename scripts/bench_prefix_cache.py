#!/usr/bin/env python3
"""Measures whole runs with a stored prefix and without one, in turns.

    python scripts/bench_prefix_cache.py MODEL --prefix-tokens 1024,8192 --repeats 5
    python scripts/bench_prefix_cache.py MODEL --prefix-tokens 1024,8192 --in-process-only
    python scripts/bench_prefix_cache.py MODEL --misses --new-tokens 128
    python scripts/bench_prefix_cache.py MODEL --lookups 10000

Each run is a process of its own. The first form generates one token, and shows how much sooner it comes from
a stored prefix, and how soon for the rest of the prompt alone, which no cache can beat. Then one process
computes the same number of tokens and restores them, in turns: this is the second form too. The third shows
what the cache costs when it has nothing for a prompt: `stores` writes the prefix, `finds nothing` has none
that is worth storing. Times are by the clock, and in brackets of the processor, which other programs disturb
less. The prefix is a text of numbers. The fourth form looks for prompts that are not stored, among so many
entries.
"""

import argparse
import bisect
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
from typing import TYPE_CHECKING

from metal_gen.device.blas import AUTO, prefer_openblas

if TYPE_CHECKING:
    from metal_gen.generation.loading import TextModel

# Prefixes are stored in blocks of so many tokens.
BLOCK = 64
# Number of prompt tokens after the prefix.
REST = 16
QUESTION = "Which is the largest?"
# No prompt is as long, so nothing is stored.
STORES_NOTHING = {"METAL_GEN_PREFIX_CACHE_MIN_TOKENS": str(2**30)}


@dataclass
class Kind:
    """Runs that are alike, with their times.

    Attributes:
        name: What they do.
        cache: Whether they use the prefix cache.
        is_cold: Whether the cache is emptied before each.
        has_prefix: Whether the prompt has the prefix.
        environment: Variables.
    """

    name: str
    cache: bool
    is_cold: bool = False
    has_prefix: bool = True
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
    parser.add_argument("--prefix-tokens", type=lengths, default=[1024], metavar="TOKENS,...")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--in-process-only", action="store_true")
    parser.add_argument("--misses", action="store_true")
    parser.add_argument("--lookups", type=int, metavar="ENTRIES")
    parser.add_argument("--new-tokens", type=int, default=1)
    parser.add_argument("options", nargs="*", help="of generate, after --")
    arguments = parser.parse_args()
    prefer_openblas(AUTO)  # Before anything imports MLX.
    if arguments.lookups is not None:
        look_up(arguments.model, arguments.lookups)
        return 0
    is_used = True
    for tokens in [] if arguments.in_process_only else arguments.prefix_tokens:
        is_used &= whole_runs(arguments, tokens)
    if not arguments.misses:
        restore_beside_prefill(arguments.model, arguments.prefix_tokens, arguments.repeats)
    return 0 if is_used else 1


def lengths(text: str) -> list[int]:
    """Parse numbers of tokens, separated by commas, as whole blocks of at least one."""
    return [max(BLOCK, int(number) // BLOCK * BLOCK) for number in text.split(",")]


def whole_runs(arguments: argparse.Namespace, tokens: int) -> bool:
    """Print the times of whole runs; return whether the prefix was used as it should be."""
    without = Kind("without", cache=False)
    kinds = [without, Kind("stored", cache=True), Kind("the rest alone", cache=False, has_prefix=False)]
    if arguments.misses:
        kinds = [without, Kind("stores", cache=True, is_cold=True)]
        kinds.append(Kind("finds nothing", cache=True, is_cold=True, environment=STORES_NOTHING))
    with tempfile.TemporaryDirectory() as folder:
        prefix, stored = Path(folder) / "prefix.txt", Path(folder) / "stored"
        prefix.write_text(numbers(arguments.model, tokens))
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
        print(f"{kind}; without takes {ratios[0]} times as long ({ratios[1]})", flush=True)
    return bool(counts["cached_tokens"]) is not arguments.misses


def numbers(model: str, tokens: int) -> str:
    """Return a text of numbers with which a prompt has at least so many stable tokens, and few more."""
    from metal_gen.checkpoint.checkpoint import Checkpoint
    from metal_gen.config.sources import resolve_settings
    from metal_gen.generation.prefixes.prompt_prefix import PromptPrefix
    from metal_gen.generation.prompt import encode_as_set
    from metal_gen.hub.locate import locate_checkpoint

    checkpoint = Checkpoint(locate_checkpoint(model))
    settings = resolve_settings().override({"prefix_cache": True}, "the script")

    def text(words: int) -> str:
        return ", ".join(f"number {number}" for number in range(words)) + ".\n"

    def has_enough(words: int) -> bool:
        prompt = encode_as_set(checkpoint, QUESTION, settings, prefix=PromptPrefix(text(words)))
        return prompt.stable_tokens >= tokens

    return text(bisect.bisect_left(range(tokens), True, key=has_enough))


def restore_beside_prefill(model: str, all_tokens: list[int], repeats: int) -> None:
    """Print how long one process takes to compute a prefix and to restore it, in turns."""
    import metal_gen

    with tempfile.TemporaryDirectory() as folder:
        loaded = metal_gen.load(
            model,
            prefix_cache=True,
            prefix_cache_dir=folder,
            prefix_cache_min_tokens=BLOCK,
            max_seq_len=max(all_tokens) + 2 * REST,
        )
        for tokens in all_tokens:
            print(compared(loaded, tokens, repeats), flush=True)


def compared(loaded: "TextModel", tokens: int, repeats: int) -> str:
    """Compute and restore a prefix in turns, and return what it took."""
    import mlx.core as mx

    cache, vocabulary = loaded.decoder.cache, loaded.checkpoint.config.vocab_size
    ids = [(7 * place * place + 11 * place) % vocabulary for place in range(tokens + REST)]
    compute(loaded, ids[:tokens])
    store(loaded, ids[:tokens])
    restore(loaded, ids)
    times: dict[str, list[float]] = {"prefill": [], "restore": []}
    logits = {}
    for number in range(repeats):
        for kind in [*times] if number % 2 else [*reversed(times)]:
            begin_s = time.perf_counter()
            if kind == "prefill":
                compute(loaded, ids[:tokens])
            else:
                restore(loaded, ids)
            times[kind].append(time.perf_counter() - begin_s)
            logits[kind] = loaded.decoder.prefill(ids[tokens:]).astype(mx.float32)
            mx.eval(logits[kind])
    computed_s, restored_s = (statistics.median(seconds) for seconds in times.values())
    nbytes = sum(each.nbytes for each in cache.layout(tokens))
    apart = mx.abs(logits["prefill"] - logits["restore"]).max().item()
    return (
        f"{tokens} tokens in one process, {repeats} times each, in turns: prefill {computed_s:.3f} s, "
        f"restore {restored_s:.3f} s ({nbytes / 1e6:.0f} MB, {nbytes / restored_s / 1e9:.2f} GB/s); prefill "
        f"takes {computed_s / restored_s:.2f} times as long; "
        + ("equal logits" if apart == 0 else f"logits apart by {apart:g}")
    )


def compute(loaded: "TextModel", ids: list[int]) -> None:
    """Compute a prefix."""
    import mlx.core as mx

    loaded.decoder.cache.clear()
    mx.eval(loaded.decoder.prefill(ids))
    loaded.decoder.cache.evaluate()


def store(loaded: "TextModel", ids: list[int]) -> None:
    """Store the computed prefix."""
    from metal_gen.prefix_cache.entry import bytes_of

    cache, prefixes = loaded.decoder.cache, loaded.prefixes
    assert prefixes is not None
    cache.mark()  # Of linear attention, states are stored only where there is a mark.
    writer = prefixes.begin_entry(ids, cache)
    assert writer is not None, prefixes.take_notices()
    for array in cache.stored(len(ids)):
        writer.add(bytes_of(array))
    prefixes.end_entry(writer, ids, cache)


def restore(loaded: "TextModel", ids: list[int]) -> None:
    """Restore the prefix of a prompt, all but its last tokens."""
    from metal_gen.text.encoded_prompt import Prompt

    cache, prefixes = loaded.decoder.cache, loaded.prefixes
    assert prefixes is not None
    cache.clear()
    found = prefixes.find(Prompt(ids), cache)
    assert found is not None, prefixes.take_notices()
    assert found.tokens == len(ids) - REST
    assert prefixes.fill(found, cache), prefixes.take_notices()
    cache.evaluate()


def run(kind: Kind, model: str, prefix: str, stored: str, *options: str) -> dict[str, int]:
    """Run `generate` once; keep its times, and return what it says of its tokens."""
    command = [sys.executable, "-m", "metal_gen", "generate", QUESTION, "-m", model, "--json"]
    command += ["-q", "--seed", "1", *options]
    if kind.has_prefix:
        command += ["--prefix-file", prefix]
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
