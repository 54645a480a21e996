#!/usr/bin/env python3
"""Measures what passes over guesses cost beside plain steps, with random weights in a published shape.

    python scripts/bench_guess_costs.py --shape 9b-hybrid
    python scripts/bench_guess_costs.py --shape CONFIG.JSON --guesses 3,8 --right 0.8,0.9

Time does not depend on the weights, so no checkpoint is needed. Each row is a number of guesses: the time of
a pass over known guesses, and of a whole round in which the model's layers for multi-token prediction make
them, both relative to a plain step. All go through the usual loop, in turns. No guess is right: a hybrid
computes its states again in each round. Random weights say nothing of how often guesses are right. The last
columns are computed, not measured: how much faster a text would be if each guess is right so often.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

import mlx.core as mx

from metal_gen.cache.config import HybridCacheConfig, KVCacheConfig
from metal_gen.cache.hybrid import new_cache
from metal_gen.cache.kv_cache import KVCache
from metal_gen.device.backend import compiles_steps, dtype_named, runs_on_cpu
from metal_gen.device_checks.random_weights import RandomWeights
from metal_gen.engine.decoder import Decoder
from metal_gen.engine.generator import GeneratedToken, generate_tokens
from metal_gen.models.assembly import assemble_mtp
from metal_gen.models.cache_size import cache_size
from metal_gen.models.config.model_config import ModelConfig
from metal_gen.models.kernels.chosen import choose_kernels
from metal_gen.models.kernels.fitted import fitted, has_head_norms
from metal_gen.models.matrices.matrix import DenseMatrix
from metal_gen.models.registry import builder_for
from metal_gen.sampling.random_keys import RandomKeys
from metal_gen.sampling.sampler import Sampler
from metal_gen.sampling.strategy import SamplingStrategy
from metal_gen.speculation.depth import USUAL, Depths
from metal_gen.speculation.generator import generate_with_guesses
from metal_gen.speculation.mtp.source import NAME, MtpSource
from metal_gen.speculation.source import GuessDraw, Guesses, GuessSource, Room, RunningPass, Wanted
from metal_gen.speculation.speculation import Speculation

_HYBRID = {
    "model_type": "qwen3_5_text",
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_conv_kernel_dim": 4,
    "rope_theta": 1e7,
    "rms_norm_eps": 1e-6,
}
SHAPES = {
    "9b-hybrid": {
        **_HYBRID,
        "vocab_size": 248_320,
        "hidden_size": 4096,
        "intermediate_size": 12_288,
        "num_hidden_layers": 32,
    },
    "tiny-hybrid": {
        **_HYBRID,
        "vocab_size": 512,
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 32,
        "linear_value_head_dim": 32,
    },
}
# What a pass over known guesses has for guesses; random weights seldom draw it.
GUESS = 7
# Tokens of a run before those whose passes count.
WARM_TOKENS = 4
BEGIN_S = time.perf_counter()


class FastWeights(RandomWeights):
    """Random matrices that the device makes: the same numbers each time are not needed."""

    def _matrix(self, name: str, *shape: int) -> DenseMatrix:
        numbers = mx.random.normal(shape, dtype=self.dtype) * mx.array(shape[-1] ** -0.5, self.dtype)
        mx.eval(numbers)
        return DenseMatrix(numbers)


class Known:
    """A `GuessSource` whose guesses cost nothing, and are wrong."""

    name, needs_hidden, compiled_count = "known", False, 0

    def begin(self, prompt: Sequence[int], kept: int) -> None:
        """See `GuessSource`."""

    def prefilled(self, hidden: mx.array) -> None:
        """See `GuessSource`."""

    def expects(self, wanted: Wanted) -> bool:
        """See `GuessSource`."""
        return True

    def guess(self, room: Room, draw: GuessDraw) -> Guesses:
        """See `GuessSource`."""
        return Guesses([GUESS] * room(self.name), self.name)

    def guess_after(self, running: RunningPass, choose: Room) -> None:
        """See `GuessSource`."""

    def accepted(self, tokens: Sequence[int], hidden: mx.array | None) -> None:
        """See `GuessSource`."""

    def take_back(self, count: int) -> None:
        """See `GuessSource`."""

    def end_text(self) -> None:
        """See `GuessSource`."""


class Fixed(Depths):
    """The same number of guesses in each pass."""

    def choose(self, kind: str) -> int:
        """See `Depths`."""
        return self.most


class Bench:
    """A model with random weights, and the time of its steps and passes.

    Args:
        wanted: Arguments of the command.
    """

    def __init__(self, wanted: argparse.Namespace) -> None:
        self.wanted = wanted
        shape = SHAPES.get(wanted.shape)
        config = ModelConfig.from_hf(json.loads(Path(wanted.shape).read_text()) if shape is None else shape)
        # A guess of random weights is right now and then: passes bring a few more tokens.
        self.capacity = wanted.depth + 2 * wanted.passes + 128
        self.prompt = [(7 * place * place + 3 * place) % 400 + 20 for place in range(wanted.depth)]
        weights = FastWeights(dtype_named(wanted.dtype))
        model = builder_for(config.model_type)(config, weights)
        size = cache_size(config, max_seq_len=self.capacity, dtype=wanted.dtype)
        if isinstance(size, HybridCacheConfig):
            most = 65
            size = replace(size, recent_passes=most) if runs_on_cpu() else replace(size, most_replayed=most)
        kernels = choose_kernels(config, wanted.dtype, wanted.dtype, has_head_norms=has_head_norms(model))
        has_kernel = kernels.attention.by_kernel
        compiles = compiles_steps("auto", has_kernel=has_kernel)
        model = fitted(model, kernels)
        self.decoder = Decoder(model, new_cache(size), compiles=compiles)
        self.known = Known()
        self.mtp = self._mtp(config, weights, compiles=compiles and has_kernel)
        named = f"attention by {kernels.attention}, residual norms by {kernels.residual_norms}"
        print(f"{named}; compiled: {compiles}; weights at {seconds_gone():.0f} s", flush=True)

    def _mtp(self, config: ModelConfig, weights: FastWeights, *, compiles: bool) -> MtpSource | None:
        """Return layers for multi-token prediction, for models that are published with them."""
        if config.linear is None:
            return None
        cache = KVCacheConfig(
            num_layers=1,
            num_kv_heads=config.num_key_value_heads,
            head_dim=config.head_dim,
            max_seq_len=self.capacity,
            dtype=self.wanted.dtype,
        )
        heads = assemble_mtp(config, weights, around_zero=True)
        rows = USUAL[NAME] + 1 if compiles else None
        return MtpSource(self.decoder.model, heads, KVCache(cache), compiled_rows=rows)

    def plain_s(self) -> float:
        """Return the seconds of a plain step."""
        sampler = self._sampler()
        logits = self.decoder.prefill(self.prompt)
        tokens = generate_tokens(self.decoder, logits, sampler, endings={}, max_tokens=self.wanted.passes + 1)
        return _seconds(tokens) / int(self.wanted.passes)

    def pass_s(self, source: GuessSource, count: int) -> float:
        """Return the seconds of a round with so many guesses."""
        sampler = self._sampler()
        speculation = Speculation(source, Fixed(count))
        speculation.begin(self.prompt, 0)
        logits = self.decoder.prefill(self.prompt, on_hidden=speculation.takes_hidden)
        speculation.begin_text()
        tokens = generate_with_guesses(self.decoder, logits, sampler, speculation, endings={})
        # The first pass ends the prompt.
        for _ in range(WARM_TOKENS):
            next(tokens)
        before, begin_s = speculation.counts.passes, time.perf_counter()
        while speculation.counts.passes < before + self.wanted.passes:
            next(tokens)
        seconds = time.perf_counter() - begin_s
        passes = speculation.counts.passes - before
        tokens.close()  # type: ignore[attr-defined]
        return seconds / passes

    def _sampler(self) -> Sampler:
        self.decoder.cache.evaluate()
        self.decoder.cache.clear()
        strategy = SamplingStrategy(temperature=0.8, top_p=0.95, top_k=20)
        return Sampler(strategy, RandomKeys(1), prompt=self.prompt, capacity=self.capacity)

    def row(self, count: int) -> str:
        """Measure a number of guesses, and return its row."""
        runs: dict[str, Callable[[], float]] = {
            "plain": self.plain_s,
            "pass": lambda: self.pass_s(self.known, count),
        }
        mtp = self.mtp
        if mtp is not None and count:
            runs["round"] = lambda: self.pass_s(mtp, count)
        times: dict[str, list[float]] = {name: [] for name in runs}
        for turn in range(self.wanted.runs + 1):
            for name, run in runs.items():
                seconds = run()
                if turn:
                    times[name].append(seconds)
        found = {name: median(each) for name, each in times.items()}
        plain = found["plain"]
        line = f"{count:7} {count + 1:4} {1e3 * plain:8.2f}"
        for name in ("pass", "round"):
            if name in found:
                line += f" {1e3 * found[name]:8.2f} {found[name] / plain:6.2f}"
            else:
                line += f" {'-':>8} {'-':>6}"
        whole = found.get("round", found["pass"])
        ratios = [gain(float(right), count, whole / plain) for right in self.wanted.right.split(",")]
        return line + "   " + " ".join(f"{ratio:5.2f}" for ratio in ratios)


def gain(right: float, count: int, cost: float) -> float:
    """Return how many times as fast a text is, computed.

    Args:
        right: Probability that a guess is right if those before it are.
        count: Guesses of a round.
        cost: Time of a round, relative to a plain step.
    """
    return float(sum(right**place for place in range(count + 1))) / cost


def _seconds(tokens: Iterator[GeneratedToken]) -> float:
    """Return the seconds from the first token to the last."""
    next(tokens)
    begin_s = time.perf_counter()
    for _ in tokens:
        pass
    return time.perf_counter() - begin_s


def seconds_gone() -> float:
    """Return the seconds since the start."""
    return time.perf_counter() - BEGIN_S


def main() -> None:
    """Measure, and print a row for each number of guesses."""
    parser = argparse.ArgumentParser(description="Measures what passes over guesses cost.")
    parser.add_argument("--shape", default="9b-hybrid", help=f"{', '.join(SHAPES)}, or a config.json")
    parser.add_argument("--guesses", default="3,0,1,2,4,8", help="numbers of guesses: %(default)s")
    parser.add_argument("--right", default="0.6,0.7,0.8,0.9", help="shares to compute for: %(default)s")
    parser.add_argument("--depth", type=int, default=512, help="tokens of the prompt")
    parser.add_argument("--passes", type=int, default=48, help="passes of a run")
    parser.add_argument("--runs", type=int, default=3, help="runs that count")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--seconds", type=float, default=48, help="start nothing after so many seconds")
    wanted = parser.parse_args()
    bench = Bench(wanted)
    rights = " ".join(f"{float(right):5.0%}" for right in wanted.right.split(","))
    print(f"guesses rows plain ms  pass ms  ratio round ms  ratio   computed gain if right:\n{'':60}{rights}")
    for count in map(int, wanted.guesses.split(",")):
        if seconds_gone() > wanted.seconds:
            print(f"{count:7} not measured: the time is over")
            continue
        print(bench.row(count), f"  at {seconds_gone():.0f} s", flush=True)


if __name__ == "__main__":
    main()
