"""Compares batches with mlx-lm's `batch_generate`: same checkpoint, prompts and lengths, in alternating runs.

    python scripts/bench_batch.py --model FOLDER [--rows 32] [--sizes 1,4,8,16] [--runs 3]

Prompts and outputs have varied lengths, as in real work. Prints total tokens per second, prompts included, as
medians over the runs, and the share of slots in use while rows remained.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable
from types import SimpleNamespace

from metal_gen.device.backend import require_mlx

PROMPT_LENGTHS = (12, 20, 35, 60, 110, 200, 350)
OUTPUT_LENGTHS = (8, 16, 32, 48, 64, 96)

Rows = list[tuple[list[int], int]]


def make_rows(count: int, vocabulary: int) -> Rows:
    """Return prompts, each with the number of tokens to generate."""
    chance = random.Random(7)
    return [
        (
            [chance.randrange(vocabulary) for _ in range(chance.choice(PROMPT_LENGTHS))],
            chance.choice(OUTPUT_LENGTHS),
        )
        for _ in range(count)
    ]


def ours(folder: str, size: int, dtype: str) -> tuple[Callable[[Rows], float], Callable[[], float]]:
    """Return a function that runs rows over slots, and one that returns their occupancy in the last run."""
    import metal_gen
    from metal_gen.device.backend import prompt_stride, runs_on_cpu
    from metal_gen.engine.slots.slot_decoder import SlotDecoder
    from metal_gen.models.rows.independence import with_independent_rows
    from metal_gen.sampling.random_keys import RandomKeys
    from metal_gen.sampling.sampler import Sampler
    from metal_gen.sampling.strategy import Greedy

    model = metal_gen.load(folder, max_seq_len=512, batch_size=size, model_dtype=dtype)
    transformer = model.decoder.model
    if runs_on_cpu():
        transformer = with_independent_rows(transformer)
    occupancy = [0.0]

    def run(rows: Rows) -> float:
        decoder = SlotDecoder(
            transformer,
            model.decoder.cache,
            chunk_size=model.plan.chunk_size,
            stride=prompt_stride(),
            compiles=model.compiles,
        )
        waiting = list(reversed(rows))
        begin = time.perf_counter()
        while waiting or decoder.in_use:
            while waiting and decoder.has_free_slot:
                prompt, count = waiting.pop()
                sampler = Sampler(Greedy(), RandomKeys(0), prompt=prompt, capacity=512)
                decoder.begin(prompt, sampler, endings={}, max_tokens=count)
            decoder.step()
            if waiting:
                occupancy[0] = decoder.busy_slot_passes / decoder.slot_passes
        return time.perf_counter() - begin

    return run, lambda: occupancy[0]


def mlx_lm(folder: str, size: int, dtype: str) -> Callable[[Rows], float]:
    """Return a function that runs rows through `batch_generate`."""
    from pathlib import Path

    import mlx.core as mx
    from mlx_lm.generate import batch_generate
    from mlx_lm.utils import load_model

    from metal_gen.device.backend import dtype_named

    model, _ = load_model(Path(folder))
    model.set_dtype(dtype_named(dtype))
    mx.eval(model.parameters())
    tokenizer = SimpleNamespace(eos_token_ids=[], decode=lambda tokens: "")

    def run(rows: Rows) -> float:
        begin = time.perf_counter()
        batch_generate(
            model,
            tokenizer,
            [prompt for prompt, _ in rows],
            max_tokens=[count for _, count in rows],
            completion_batch_size=size,
            prefill_batch_size=size,
        )
        return time.perf_counter() - begin

    return run


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="folder of a checkpoint")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--sizes", default="1,4,8,16")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--dtype", default="float32")
    arguments = parser.parse_args()
    require_mlx()
    rows = make_rows(arguments.rows, 4000)
    tokens = sum(len(prompt) + count for prompt, count in rows)
    print(f"{len(rows)} rows, {tokens} tokens, {sum(count for _, count in rows)} of them new")
    for size in map(int, arguments.sizes.split(",")):
        run, occupancy = ours(arguments.model, size, arguments.dtype)
        theirs = mlx_lm(arguments.model, size, arguments.dtype)
        for warm in (run, theirs):
            warm(rows[:size])
        pairs = [(run(rows), theirs(rows)) for _ in range(arguments.runs)]
        own, other = (tokens / statistics.median(times) for times in zip(*pairs, strict=True))
        print(
            f"batch size {size:2}: metal-gen {own:7.1f} tok/s, mlx-lm {other:7.1f} tok/s, "
            f"ratio {own / other:.2f}, slots in use {occupancy():.0%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
