"""Checks draws from logits of a whole vocabulary: every strategy, with the same keys as on the CPU.

Axes: V vocabulary.
"""

from collections.abc import Iterator
from functools import partial

import mlx.core as mx

from metal_gen.device.backend import on_cpu
from metal_gen.device_checks.check import Check, Pair, random_numbers
from metal_gen.engine.generator import read_draw
from metal_gen.sampling.draw_rule import Status
from metal_gen.sampling.random_keys import RandomKeys
from metal_gen.sampling.sampler import Sampler
from metal_gen.sampling.strategy import Greedy, SamplingStrategy, Temperature, TopK, TopP

VOCABULARY, DRAWS = 151_936, 12
STRATEGIES = {
    "greedy": Greedy(),
    "temperature": Temperature(0.9),
    "top-k": TopK(50),
    "top-p": TopP(0.9),
    "temperature, top-k and top-p": SamplingStrategy(temperature=0.6, top_k=20, top_p=0.95),
    "min-p": SamplingStrategy(temperature=1.0, min_p=0.05),
    "penalties": SamplingStrategy(temperature=0.8, repetition_penalty=1.3, presence_penalty=0.5),
}


def sampler_checks() -> Iterator[Check]:
    """Yield one check per strategy: the same keys must give the same tokens."""
    for name, strategy in STRATEGIES.items():
        yield Check(f"sampler: {name}", 0.0, partial(_draws, strategy))


def _draws(strategy: SamplingStrategy) -> Iterator[Pair]:
    logits = random_numbers(8, 1, VOCABULARY, scale=3.0)
    drawn = _ids(strategy, logits)
    with on_cpu():
        yield mx.array(drawn), mx.array(_ids(strategy, logits))


def _ids(strategy: SamplingStrategy, logits: mx.array) -> list[int]:
    sampler = Sampler(strategy, RandomKeys(5), prompt=[3, 14, 15], capacity=DRAWS + 3)
    ids = []
    for index in range(DRAWS):
        draw = sampler.draw(logits, index)
        token, status = read_draw(draw)
        if status == Status.UNCERTAIN:
            draw = sampler.redraw(draw)
            token, _ = read_draw(draw)
        sampler.accept(draw)
        ids.append(token)
    return ids
