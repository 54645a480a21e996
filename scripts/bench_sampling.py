#!/usr/bin/env python3
"""Measures the time per token of the whole sampler, and of mlx-lm's and a numpy one, on the same logits.

    python scripts/bench_sampling.py                  # Qwen's 151,936 tokens
    python scripts/bench_sampling.py --rounds 50 --vocab 32000

Logits are peaked, like a language model's, or flat, the worst case. Each sampler does what its decode loop
does between logits and a token on the host: ours is compiled on a GPU, and mlx-lm's takes log-probabilities,
which its loop computes from the logits. Penalties cover 1,000 tokens of history and the new ones. Columns:
ours, numpy on the host, mlx-lm; medians of alternating runs, and ours / mlx-lm. A sampler that fails is named
with its error, and the others go on.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable
from copy import copy

import mlx.core as mx
import numpy as np
from mlx_lm.sample_utils import make_logits_processors, make_sampler

from metal_gen.device.backend import device_name, runs_on_cpu
from metal_gen.engine.generator import read_draw
from metal_gen.errors import MetalGenError
from metal_gen.sampling.compiled_draws import CompiledDraws
from metal_gen.sampling.draw_rule import Status
from metal_gen.sampling.random_keys import RandomKeys
from metal_gen.sampling.sampler import Sampler
from metal_gen.sampling.strategy import Greedy, SamplingStrategy, Temperature, TopK, TopP

HISTORY = 1000
# Draws that do not count. After so many, all functions that repeated misses need are compiled.
WARM_UP = 24
# A case ends early after so many seconds.
MOST_S = 10
CASES: dict[str, tuple[SamplingStrategy, dict[str, float]]] = {
    "greedy": (Greedy(), {"temp": 0.0}),
    "temperature 0.8": (Temperature(0.8), {"temp": 0.8}),
    "top-k 50": (TopK(50), {"temp": 1.0, "top_k": 50}),
    "top-p 0.9": (TopP(0.9), {"temp": 1.0, "top_p": 0.9}),
    "top-k 50, top-p 0.9": (SamplingStrategy(top_k=50, top_p=0.9), {"temp": 1.0, "top_k": 50, "top_p": 0.9}),
    "Qwen3's own": (
        SamplingStrategy(temperature=0.6, top_k=20, top_p=0.95),
        {"temp": 0.6, "top_k": 20, "top_p": 0.95},
    ),
    "min-p 0.05": (SamplingStrategy(min_p=0.05), {"temp": 1.0, "min_p": 0.05}),
    "top-p 0.9, repetition 1.1": (
        SamplingStrategy(top_p=0.9, repetition_penalty=1.1),
        {"temp": 1.0, "top_p": 0.9, "repetition_penalty": 1.1},
    ),
}


def make_logits(vocab: int) -> dict[str, mx.array]:
    """Return logits (1, V): a normal distribution with sixty outstanding tokens, and nearly equal ones."""
    noise = mx.random.normal((1, vocab), key=mx.random.key(0))
    places = mx.random.randint(0, vocab, (60,), key=mx.random.key(1))
    bumps = mx.zeros((1, vocab)).at[:, places].add(0.35 * mx.arange(60, 0, -1))
    return {"peaked": 2.2 * noise + bumps, "flat": 0.1 * noise}


def ours(strategy: SamplingStrategy, logits: mx.array, history: list[int]) -> Callable[[int], int]:
    """Return a function that samples like the decode loop, including redraws of uncertain results."""
    sampler = Sampler(strategy, RandomKeys(1), prompt=history, capacity=HISTORY + 4096)
    # The decode loop compiles draws where it compiles steps.
    compiled = None if runs_on_cpu() else CompiledDraws()

    def draw(index: int) -> int:
        drawn = (
            sampler.draw(logits, index) if compiled is None else compiled.draw(logits, sampler, index, None)
        )
        token, status = read_draw(drawn)
        if status == Status.UNCERTAIN:
            drawn = sampler.redraw(drawn)
            token, _ = read_draw(drawn)
        sampler.accept(drawn)
        return token

    return draw


def theirs(options: dict[str, float], logits: mx.array, history: list[int]) -> Callable[[int], int]:
    """Return a function that samples with mlx-lm's sampler and logits processors, as its loop does."""
    options = dict(options)
    penalty = options.pop("repetition_penalty", None)
    sampler = make_sampler(**options)  # type: ignore[arg-type]
    processors = (
        make_logits_processors(repetition_penalty=penalty, repetition_context_size=HISTORY) if penalty else []
    )
    tokens = mx.array(history)

    def draw(_: int) -> int:
        nonlocal tokens
        # Its penalties write to what they are given.
        row = copy(logits)
        for processor in processors:
            row = processor(tokens, row)
        token = sampler(row - mx.logsumexp(row, axis=-1, keepdims=True))
        if processors:
            tokens = mx.concatenate([tokens, token.astype(tokens.dtype)])
        return int(np.array(token)[0])

    return draw


def on_host(strategy: SamplingStrategy, logits: mx.array, history: list[int]) -> Callable[[int], int]:
    """Return a function that samples with numpy from logits in unified memory."""
    generator = np.random.default_rng(1)
    seen = np.unique(history)

    def draw(_: int) -> int:
        row = np.array(logits)[0]
        if strategy.repetition_penalty != 1:
            found = row[seen]
            row[seen] = np.where(
                found > 0, found / strategy.repetition_penalty, found * strategy.repetition_penalty
            )
        if strategy.is_greedy:
            return int(row.argmax())
        row = row / np.float32(strategy.temperature)
        weights = np.exp(row - row.max())
        if strategy.top_k is not None:
            ids = np.argpartition(row, -strategy.top_k)[-strategy.top_k :]
        elif strategy.top_p is not None:
            ids = np.argpartition(row, -1024)[-1024:]
            if weights[ids].sum() < strategy.top_p * weights.sum():
                ids = np.arange(row.size)
        else:
            ids = np.arange(row.size)
        if strategy.top_p is not None:
            ids = ids[np.argsort(-row[ids])]
            mass = weights[ids].cumsum()
            total = mass[-1] if strategy.top_k else weights.sum()
            ids = ids[: int((mass - weights[ids] < strategy.top_p * total).sum())]
        if strategy.min_p:
            ids = ids[weights[ids] >= strategy.min_p]
        ends = weights[ids].cumsum()
        return int(ids[np.searchsorted(ends, generator.random() * ends[-1])])

    return draw


def time_alternating(draws: dict[str, Callable[[int], int]], rounds: int) -> dict[str, float]:
    """Return the median milliseconds of each function, and NaN for one that fails."""
    times: dict[str, list[float]] = {name: [] for name in draws}
    failed: set[str] = set()
    begun = time.perf_counter()
    for index in range(-WARM_UP, rounds):
        if index > 0 and time.perf_counter() - begun > MOST_S:
            break
        for name in [name for name in draws if name not in failed]:
            begin = time.perf_counter()
            try:
                draws[name](index + WARM_UP)
            except (RuntimeError, ValueError, MetalGenError) as error:
                print(f"{name}: {type(error).__name__}: {error}", flush=True)
                failed.add(name)
            if index >= 0:
                times[name].append(1e3 * (time.perf_counter() - begin))
    return {name: math.nan if name in failed else statistics.median(values) for name, values in times.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vocab", type=int, default=151_936)
    parser.add_argument("--rounds", type=int, default=21)
    arguments = parser.parse_args()

    history = [7 * place % arguments.vocab for place in range(HISTORY)]
    print(f"{device_name()}; V = {arguments.vocab:,}; milliseconds per token, median of {arguments.rounds}")
    print(f"{'':7}{'':27}{'ours':>9}{'numpy':>9}{'mlx-lm':>9}{'ratio':>8}", flush=True)
    for shape, logits in make_logits(arguments.vocab).items():
        mx.eval(logits)
        for name, (strategy, options) in CASES.items():
            medians = time_alternating(
                {
                    "ours": ours(strategy, logits, history),
                    "numpy": on_host(strategy, logits, history),
                    "mlx-lm": theirs(options, logits, history),
                },
                arguments.rounds,
            )
            columns = "".join(f"{value:9.2f}" for value in medians.values())
            print(f"{shape:7}{name:27}{columns}{medians['ours'] / medians['mlx-lm']:8.2f}", flush=True)


if __name__ == "__main__":
    main()
