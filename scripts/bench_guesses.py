#!/usr/bin/env python3
"""Compares texts with and without guesses: speed in alternating runs, right guesses, and peak memory.

    python scripts/bench_guesses.py --model FOLDER
    python scripts/bench_guesses.py --model FOLDER --sources lookup,auto --texts copy,story --temperature 0.7
    python scripts/bench_guesses.py --model FOLDER --sources draft --draft-model FOLDER

FOLDER is a trained model: guesses for random weights are never right. For each source and text, one run
warms up, and the others alternate without and with guesses; each goes first in turn. A row has the median
speeds, the mean ratio and its standard error, the tokens of a pass, right guesses of all, and for how many
tokens both texts are equal. Depths begin without what earlier runs have learned, and are not kept. On a CPU,
where guesses save no time, counts alone mean something.
"""

import argparse
import gc
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean, median, stdev

import mlx.core as mx

import metal_gen
from metal_gen.bench.sections.speculation import WORKLOADS
from metal_gen.device.buffer_cache import clear_buffer_cache
from metal_gen.errors import MetalGenError
from metal_gen.generation.loading import TextModel
from metal_gen.generation.pieces import Generation
from metal_gen.speculation.depth import LearnedDepths
from metal_gen.speculation.speculation import Speculation

PASSAGE = (
    "On Monday the council met in the old hall to discuss the bridge. The engineer said that the bridge "
    "would cost four million and take two years. Three members asked about the school road, which floods "
    "every spring. The mayor promised an answer by June. After a short break the members voted: nine were "
    "for the bridge, two were against it, and one was absent. "
)
FUNCTIONS = (
    '''def total_price(items, tax_rate):
    """Return the price of all items, with tax."""
    total = 0.0
    for item in items:
        if item.quantity < 0:
            raise ValueError("quantity must not be negative")
        total += item.price * item.quantity
    return total * (1 + tax_rate)
''',
    '''def average_price(items, tax_rate):
    """Return the average price of an item, with tax."""
    count = sum(item.quantity for item in items)
    if count == 0:
        return 0.0
    return total_price(items, tax_rate) / count
''',
    '''def price_list(items, tax_rate):
    """Return a line for each item, with its price and tax."""
    lines = []
    for item in items:
        price = item.price * (1 + tax_rate)
        lines.append(f"{item.name}: {price:.2f}")
    return lines
''',
    '''def cheapest_item(items, tax_rate):
    """Return the item with the lowest price, with tax."""
    best = None
    for item in items:
        if best is None or item.price < best.price:
            best = item
    return best, best.price * (1 + tax_rate)
''',
)
OLD, NEW = "Old code:\n\n", "New code, with tax_rate renamed to rate:\n\n"


def renaming() -> str:
    """Return a prompt that renames a parameter in three functions and begins to do so in a fourth."""
    edits = "\n\n".join(f"{OLD}{code}\n{NEW}{code.replace('tax_rate', 'rate')}" for code in FUNCTIONS)
    begun = edits.rindex("(items, rate):") + len("(items, rate):")
    return f"Rename tax_rate to rate, and change nothing else.\n\n{edits[:begun]}"


# Prompts that are not put into a chat template: a beginning tells even a small model what to do.
CONTINUED = {
    "copy": f"Repeat this text exactly, word for word:\n\n{PASSAGE * 2}\n\nThe text again:\n\n{PASSAGE[:80]}",
    "code_edit": renaming(),
}
# What ends a text before its last token, since a model may go on with another task.
STOPS = {"code_edit": [f"\n{OLD.strip()}"]}
TEXTS = {**WORKLOADS, **CONTINUED}
MAX_SEQ_LEN = 1536
BEGIN_S = time.perf_counter()


def seconds_gone() -> float:
    """Return the seconds since the start."""
    return time.perf_counter() - BEGIN_S


def load(wanted: argparse.Namespace, source: str) -> TextModel:
    """Load the model with a source of guesses whose depths have learned nothing yet."""
    draft = wanted.draft_model if source in ("draft", "auto") else None
    model = metal_gen.load(
        wanted.model,
        max_seq_len=MAX_SEQ_LEN,
        speculate=source,
        draft_model=draft,
        draft_tokens=None if source == "auto" and draft is None else wanted.draft_tokens,
    )
    guesses = model.speculation
    if guesses is None or not isinstance(guesses.depths, LearnedDepths):
        return model
    fresh = LearnedDepths(guesses.depths.most, model.settings.draft_tokens)
    return replace(model, speculation=Speculation(guesses.source, fresh))


def generated(model: TextModel, name: str, wanted: argparse.Namespace) -> Generation:
    """Generate a text; end tokens do not stop it, only its stop strings."""
    return metal_gen.generate(
        model,
        TEXTS[name],
        raw=name in CONTINUED,
        max_tokens=wanted.tokens,
        temperature=wanted.temperature,
        seed=wanted.seed,
        ignore_eos=True,
        stop=STOPS.get(name, []),
    )


def equal_tokens(one: Sequence[int], other: Sequence[int]) -> int:
    """Return the number of tokens before the first that differ."""
    pairs = enumerate(zip(one, other, strict=True))
    return next((place for place, (left, right) in pairs if left != right), len(one))


def mean_ratio(speeds: Sequence[float], others: Sequence[float]) -> tuple[float, float]:
    """Return the geometric mean of the ratios in pairs, and its standard error."""
    logs = [math.log(speed / other) for speed, other in zip(speeds, others, strict=True)]
    ratio = math.exp(fmean(logs))
    return ratio, ratio * stdev(logs) / math.sqrt(len(logs)) if len(logs) > 1 else math.nan


def compare(model: TextModel, source: str, name: str, wanted: argparse.Namespace) -> str | None:
    """Return the row of a text; None if the time is over before a run counts."""
    both = {"off": replace(model, speculation=None), "on": model}
    speeds: dict[str, list[float]] = {kind: [] for kind in both}
    texts: dict[str, Generation] = {}
    for turn in range(wanted.runs + 1):
        for kind, each in sorted(both.items(), reverse=turn % 2 == 1):
            texts[kind] = generated(each, name, wanted)
            if turn and (speed := texts[kind].statistics.decode_tps) is not None:
                speeds[kind].append(speed)
        if seconds_gone() > wanted.seconds:
            break
    counts = texts["on"].statistics.speculation
    assert counts is not None
    if not speeds["on"]:
        return None
    ratio, spread = mean_ratio(speeds["on"], speeds["off"])
    equal = equal_tokens(texts["off"].token_ids, texts["on"].token_ids)
    return (
        f"{source:8} {name:10} {median(speeds['off']):8.1f} {median(speeds['on']):8.1f} {ratio:6.3f} "
        f"{spread:6.3f} {counts.tokens_per_pass:7.2f} "
        f"{counts.accepted:5}/{counts.drafted:<5} {equal:5}/{counts.tokens:<5} {len(speeds['on']):4} "
        + ", ".join(f"{depth}: {passes}" for depth, passes in sorted(counts.by_depth.items()))
    )


def measure(source: str, wanted: argparse.Namespace) -> None:
    """Print a row for each text, and the memory."""
    mx.reset_peak_memory()
    model = load(wanted, source)
    if model.speculation is None:
        print(f"{source:8} makes no guesses for this model on this device", flush=True)
        return
    loaded_s = seconds_gone()
    for name in wanted.texts.split(","):
        row = compare(model, source, name, wanted) if seconds_gone() < wanted.seconds else None
        print(row or f"{source:8} {name:10} not measured: the time is over", flush=True)
    peak, plan = mx.get_peak_memory(), model.plan.total_bytes
    print(
        f"{source:8} peak {peak / 2**20:,.0f} MiB, planned {plan / 2**20:,.0f}, ratio {peak / plan:.3f}; "
        f"loaded at {loaded_s:.0f} s, done at {seconds_gone():.0f} s",
        flush=True,
    )


def main() -> None:
    """Compare, and print."""
    parser = argparse.ArgumentParser(description="Compares texts with and without guesses.")
    parser.add_argument("--model", help="folder or name of the model; default: the bundled one")
    parser.add_argument("--sources", help="lookup, mtp, draft, auto; default: those that the model can have")
    parser.add_argument("--draft-model", help="folder or name of the draft model")
    parser.add_argument("--draft-tokens", type=int, help="most guesses in a pass")
    parser.add_argument("--texts", default="copy,code_edit,story", help=f"of {', '.join(TEXTS)}")
    parser.add_argument(
        "--tokens", type=int, default=128, help="tokens of each text; the copy ends after some 130"
    )
    parser.add_argument("--runs", type=int, default=3, help="runs that count")
    parser.add_argument("--seconds", type=float, default=50, help="start nothing after so many seconds")
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=3)
    wanted = parser.parse_args()
    if unknown := set(wanted.texts.split(",")) - set(TEXTS):
        parser.error(f"there is no text {', '.join(sorted(unknown))}")
    if wanted.runs < 1:
        parser.error("there must be at least one run")
    usual = ["lookup", "mtp", *(["draft"] if wanted.draft_model else []), "auto"]
    print(
        "source   text       off tok/s   on  ratio   s.e.  a pass  right        equal  runs passes by guesses"
    )
    for source in wanted.sources.split(",") if wanted.sources else usual:
        if seconds_gone() > wanted.seconds:
            print(f"{source:8} not measured: the time is over")
            continue
        try:
            measure(source, wanted)
        except MetalGenError as error:
            print(f"{source:8} {error.message}", flush=True)
        gc.collect()
        clear_buffer_cache()


if __name__ == "__main__":
    main()
