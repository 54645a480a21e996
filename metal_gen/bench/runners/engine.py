"""Drives metal-gen's own engine; the only file here that uses its decoder, its loop and its sampler."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import mlx.core as mx

from metal_gen.bench.measurement import METAL_GEN
from metal_gen.bench.runners.runner import DecodeRun
from metal_gen.bench.runners.step_graph import count_device_operations, count_primitives
from metal_gen.cache.config import KVCacheConfig
from metal_gen.cache.hybrid import new_cache
from metal_gen.device.backend import runs_on_cpu
from metal_gen.engine.decoder import Decoder
from metal_gen.engine.generator import generate_tokens, read_draw
from metal_gen.engine.guide import TokenGuide
from metal_gen.engine.guided import generate_guided_tokens
from metal_gen.generation.loading import TextModel
from metal_gen.sampling.draw_rule import Status
from metal_gen.sampling.random_keys import RandomKeys
from metal_gen.sampling.sampler import Sampler
from metal_gen.sampling.strategy import Greedy, SamplingStrategy

FIRST_TOKEN = 1
PLAIN, COMPILED = "plain", "compiled"


@dataclass(frozen=True)
class HostTimes:
    """Seconds of a mean decode step on the host.

    Attributes:
        build_s: Building its graph.
        hand_over_s: Handing the graph over to the device.
        wait_s: Waiting for a token of the device.
    """

    build_s: float
    hand_over_s: float
    wait_s: float


class EngineRunner:
    """The engine with one cache.

    Args:
        decoder: The decoder; every run clears its cache.
    """

    program = METAL_GEN

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder

    @classmethod
    def with_capacity(cls, model: TextModel, cache: KVCacheConfig) -> "EngineRunner":
        """Return a runner of the same model with a new cache, allocated now."""
        used = model.decoder
        return cls(
            Decoder(
                used.model,
                new_cache(cache),
                chunk_size=used.chunk_size,
                ahead_bytes=used.ahead_bytes,
                compiles=used.compiled is not None,
            )
        )

    @property
    def capacity(self) -> int:
        """Capacity of the cache in tokens."""
        return self.decoder.cache.config.max_seq_len

    def first_token_s(self, prompt: Sequence[int]) -> float:
        """See `Runner`."""
        self.decoder.cache.clear()
        begin = time.perf_counter()
        for _ in self._generate(prompt, 1):
            pass
        return time.perf_counter() - begin

    def decode(self, depth: int, count: int) -> DecodeRun:
        """See `Runner`."""
        self.decoder.cache.clear()
        self.decoder.cache.claim(depth)
        return timed(self._generate([FIRST_TOKEN], count))

    def decode_guided(self, depth: int, count: int, guide: TokenGuide) -> DecodeRun:
        """Decode like `decode`, as a guide allows."""
        self.decoder.cache.clear()
        self.decoder.cache.claim(depth)
        logits = self.decoder.prefill([FIRST_TOKEN])
        sampler = self._sampler(Greedy())
        tokens = generate_guided_tokens(self.decoder, logits, sampler, guide, endings={}, max_tokens=count)
        return timed(token.id for token in tokens)

    def greedy_tokens(self, prompt: Sequence[int], count: int) -> list[int]:
        """See `Runner`."""
        self.decoder.cache.clear()
        return list(self._generate(prompt, count))

    def primitives(self, depth: int) -> int:
        """See `Runner`."""
        return self._count(count_primitives, depth)

    def device_operations(self, depth: int) -> int:
        """Return how many of these operations the device computes; the others are views."""
        return self._count(count_device_operations, depth)

    def _count(self, count: Callable[..., int], depth: int) -> int:
        cache = self.decoder.cache
        cache.clear()
        cache.claim(depth)
        sampler = self._sampler(Greedy())
        token = mx.array([FIRST_TOKEN])
        cache.evaluate()
        draw = self.decoder.draw_next(token, sampler, 0)
        found = count(*draw.results)
        mx.eval(draw.results)
        cache.evaluate()
        return found

    def kinds_of_step(self) -> "dict[str, EngineRunner]":
        """Return runners of the plain and the compiled step over the same cache.

        On a CPU, MLX compiles with a C++ compiler, so the compiled step is left out unless it is in use.
        """
        used = self.decoder
        kinds = {PLAIN: False, COMPILED: True}
        if runs_on_cpu() and used.compiled is None:
            del kinds[COMPILED]
        return {
            name: EngineRunner(
                Decoder(
                    used.model,
                    used.cache,
                    chunk_size=used.chunk_size,
                    ahead_bytes=used.ahead_bytes,
                    compiles=compiles,
                )
            )
            for name, compiles in kinds.items()
        }

    def host_times(self, depth: int, count: int) -> HostTimes:
        """Return where the time of `count` steps goes on the host, in the order of the generation loop."""
        cache = self.decoder.cache
        cache.clear()
        cache.claim(depth)
        sampler = self._sampler(Greedy())
        draw = sampler.draw(self.decoder.prefill([FIRST_TOKEN]), 0)
        mx.async_eval(draw.results)
        built_s = handed_over_s = waited_s = 0.0
        for index in range(count):
            begin = time.perf_counter()
            sampler.accept(draw)
            following = self.decoder.draw_next(draw.token, sampler, index + 1)
            built = time.perf_counter()
            built_s += built - begin
            if self.decoder.hands_over_early:
                mx.async_eval(following.results)
            handed_over = time.perf_counter()
            read_draw(draw)
            read = time.perf_counter()
            mx.async_eval(following.results)
            handed_over_s += handed_over - built + time.perf_counter() - read
            waited_s += read - handed_over
            draw = following
        mx.eval(draw.results)
        return HostTimes(built_s / count, handed_over_s / count, waited_s / count)

    def sample_s(self, strategy: SamplingStrategy, logits: mx.array, count: int) -> float:
        """Return the seconds to sample `count` tokens from the same logits, reading each on the host."""
        sampler = self._sampler(strategy)
        begin = time.perf_counter()
        for index in range(count):
            draw = sampler.draw(logits, index)
            _, status = read_draw(draw)
            if status == Status.UNCERTAIN:
                draw = sampler.redraw(draw)
                read_draw(draw)
            sampler.accept(draw)
        return time.perf_counter() - begin

    def logits(self, prompt: Sequence[int]) -> mx.array:
        """Return the evaluated logits (1, V) after a prompt."""
        self.decoder.cache.clear()
        logits = self.decoder.prefill(prompt)
        mx.eval(logits)
        return logits

    def cache_write_s(self, depth: int, count: int) -> float:
        """Return the seconds to write the keys and values of `count` tokens, one token after another."""
        cache = self.decoder.cache
        cache.clear()
        cache.claim(depth)
        config = cache.config
        new = mx.ones((1, config.num_kv_heads, 1, config.head_dim), cache.dtype)
        mx.eval(new)
        begin = time.perf_counter()
        for _ in range(count):
            cache.claim(1)
            for layer in range(config.num_layers):
                cache.update(layer, new, new)
        cache.evaluate()
        return time.perf_counter() - begin

    def _sampler(self, strategy: SamplingStrategy) -> Sampler:
        return Sampler(strategy, RandomKeys(0), prompt=[FIRST_TOKEN], capacity=self.capacity)

    def _generate(self, prompt: Sequence[int], count: int) -> Iterator[int]:
        """Yield the ids that follow the cache contents and a prompt; end tokens do not stop it."""
        logits = self.decoder.prefill(prompt)
        tokens = generate_tokens(self.decoder, logits, self._sampler(Greedy()), endings={}, max_tokens=count)
        return (token.id for token in tokens)


def timed(tokens: Iterator[int]) -> DecodeRun:
    """Consume all tokens, and record when the first and the last arrived."""
    ids = []
    first_s = last_s = 0.0
    for token in tokens:
        last_s = time.perf_counter()
        first_s = first_s or last_s
        ids.append(token)
    return DecodeRun(tuple(ids), first_s, last_s)
