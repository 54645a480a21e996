"""Checks whole models of two to four layers with random weights: prefill, decode, compiled steps and slots.

Compares what the device computes step by step over its cache with one pass over the whole text on the CPU.

Axes: V vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import mlx.core as mx

from metal_gen.cache.config import HybridCacheConfig
from metal_gen.cache.hybrid import new_cache
from metal_gen.cache.kv_cache import KVCache
from metal_gen.device.backend import on_cpu, runs_on_cpu
from metal_gen.device_checks.check import TOLERANCES, Check, Pair
from metal_gen.device_checks.random_weights import RandomWeights
from metal_gen.engine.decoder import Decoder
from metal_gen.engine.generator import read_draw
from metal_gen.engine.slots.slot_decoder import SlotDecoder
from metal_gen.errors import MetalGenError
from metal_gen.models.cache_size import cache_size
from metal_gen.models.config.model_config import ModelConfig
from metal_gen.models.kernels.add_norm import try_add_norm
from metal_gen.models.kernels.attention_trial import choose_attention
from metal_gen.models.kernels.choice import BY_KERNEL
from metal_gen.models.kernels.chosen import ModelKernels
from metal_gen.models.kernels.fitted import fitted, has_head_norms
from metal_gen.models.registry import builder_for
from metal_gen.models.transformer import Transformer
from metal_gen.sampling.random_keys import RandomKeys
from metal_gen.sampling.sampler import Sampler
from metal_gen.sampling.strategy import Greedy

# With so many tokens at once, the kernel for linear attention parts heads; with the others it does not.
CAPACITY, CHUNK, DTYPE = 320, 144, "float32"
PROMPT_TOKENS, NEW_TOKENS = 200, 5
# Lengths of the prompts of several slots. One prompt shares its beginning with the first.
SLOT_PROMPT_TOKENS = (100, 9, 90)

BASE: dict[str, Any] = {
    "hidden_size": 256,
    "intermediate_size": 384,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "vocab_size": 512,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
}
EXPERTS: dict[str, Any] = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 128}
LINEAR: dict[str, Any] = {
    "num_hidden_layers": 4,
    "head_dim": 256,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_conv_kernel_dim": 4,
}
MODELS: dict[str, dict[str, Any]] = {
    "qwen2": {"model_type": "qwen2", "head_dim": 64},
    "qwen2, sliding window": {
        **{"model_type": "qwen2", "head_dim": 64, "max_window_layers": 0},
        **{"use_sliding_window": True, "sliding_window": 48},
    },
    "qwen3": {"model_type": "qwen3"},
    "qwen3_moe": {"model_type": "qwen3_moe", **EXPERTS},
    "qwen3_next": {
        **{"model_type": "qwen3_next", "shared_expert_intermediate_size": 128},
        **LINEAR,
        **EXPERTS,
    },
    "qwen3_5": {"model_type": "qwen3_5_text", **LINEAR},
}


# Families whose compiled steps have different fused kernels.
COMPILED = ("qwen2, sliding window", "qwen3", "qwen3_moe", "qwen3_next", "qwen3_5")


@dataclass(frozen=True)
class _Family:
    """A model of random weights that several checks share, and its copy on the CPU."""

    config: ModelConfig

    @cached_property
    def model(self) -> Transformer:
        """The model on the device."""
        return self._build()

    @cached_property
    def model_by_kernel(self) -> Transformer:
        """The model on the device, with the kernels for new tokens."""
        adds = try_add_norm(self.config.hidden_size, DTYPE)
        return fitted(self.model, ModelKernels(BY_KERNEL, adds, in_linear_attention=True))

    @property
    def has_kernel(self) -> bool:
        """Whether the kernel works on this device for this model."""
        normed = has_head_norms(self.model)
        return choose_attention(self.config, DTYPE, DTYPE, has_head_norms=normed).by_kernel

    @cached_property
    def expected_model(self) -> Transformer:
        """The model on the CPU."""
        with on_cpu():
            return self._build()

    def _build(self) -> Transformer:
        return builder_for(self.config.model_type)(self.config, RandomWeights(mx.float32))

    def expected(self, prompt: Sequence[int], drawn: Sequence[int]) -> mx.array:
        """Return logits, (new tokens, V), of one pass over prompt and drawn tokens on the CPU."""
        with on_cpu():
            model = self.expected_model
            hidden = model(mx.array([[*prompt, *drawn[:-1]]]), _cache(self.config))
            logits = model.logits(hidden[0, -len(drawn) :])
            mx.eval(logits)
            return logits


def model_checks() -> Iterator[Check]:
    """Yield checks of every family: plain and compiled steps, slots, and the same by a kernel.

    Weights are unquantized: for long prompts over quantized ones, CUDA compiles kernels for seconds each.
    """
    plain = TOLERANCES[mx.float32]
    for name, fields in MODELS.items():
        family = _Family(ModelConfig.from_hf({**BASE, **fields}))
        yield Check(f"{name}: prefill and decode", plain, partial(_decoded, family))
        yield Check(f"{name}: slots", plain, partial(_slots, family))
        # On a CPU, a compiled step calls a C++ compiler, which takes seconds.
        if name in COMPILED and not runs_on_cpu():
            yield Check(f"{name}: compiled step", plain, partial(_decoded, family, compiles=True))
            yield Check(f"{name}: compiled slots", plain, partial(_slots, family, compiles=True))
        if family.has_kernel:
            model = family.model_by_kernel
            yield Check(f"{name}: decode by kernel", plain, partial(_decoded, family, model))
            yield Check(f"{name}: step by kernel", plain, partial(_decoded, family, model, compiles=True))
            yield Check(f"{name}: slots by kernel", plain, partial(_slots, family, model, compiles=True))
            yield Check(f"{name}: pass over guesses by kernel", plain, partial(_rows, family, model))


def _decoded(family: _Family, model: Transformer | None = None, *, compiles: bool = False) -> Iterator[Pair]:
    used = model or family.model
    decoder = Decoder(used, _cache(family.config), chunk_size=CHUNK, compiles=compiles)
    prompt = _tokens(PROMPT_TOKENS)
    sampler = Sampler(Greedy(), RandomKeys(0), prompt=prompt, capacity=CAPACITY)
    logits = [decoder.prefill(prompt)]
    draw = sampler.draw(logits[0], 0)
    drawn = [read_draw(draw)[0]]
    for index in range(1, NEW_TOKENS):
        sampler.accept(draw)
        draw = decoder.draw_next(draw.token, sampler, index)
        logits.append(draw.logits)
        drawn.append(read_draw(draw)[0])
    yield mx.concatenate(logits), family.expected(prompt, drawn)


def _rows(family: _Family, model: Transformer | None = None) -> Iterator[Pair]:
    """Add several tokens in one compiled pass, take some of them back, and add others."""
    prompt, tokens = _tokens(PROMPT_TOKENS), [7, 300, 44, 5, 210]
    cache = cache_size(family.config, max_seq_len=CAPACITY, dtype=DTYPE)
    if isinstance(cache, HybridCacheConfig):
        cache = replace(cache, most_replayed=len(tokens))
    decoder = Decoder(model or family.model, new_cache(cache), chunk_size=CHUNK, compiles=True)
    decoder.prefill(prompt)
    for kept in (2, 0):
        found = decoder.run_compiled_rows(mx.array(tokens)).logits
        yield found, family.expected(prompt, [*tokens, 0])[1:]
        decoder.cache.take_back(len(tokens) - kept)
        prompt, tokens = [*prompt, *tokens[:kept]], [9, 8, 77]


def _slots(family: _Family, model: Transformer | None = None, *, compiles: bool = False) -> Iterator[Pair]:
    cache = _cache(family.config, batch_size=len(SLOT_PROMPT_TOKENS))
    slots = SlotDecoder(model or family.model, cache, chunk_size=CHUNK * 3, compiles=compiles)
    prompts = [_tokens(count) for count in SLOT_PROMPT_TOKENS]
    texts = [
        slots.begin(
            prompt,
            Sampler(Greedy(), RandomKeys(0), prompt=prompt, capacity=CAPACITY),
            endings={},
            max_tokens=NEW_TOKENS,
        )
        for prompt in prompts
    ]
    logits: list[list[mx.array]] = [[] for _ in texts]
    drawn: list[list[int]] = [[] for _ in texts]
    while slots.in_use:
        for text, token in slots.step():
            if isinstance(token, MetalGenError):
                raise ValueError(token.message)
            assert token.draw is not None
            place = texts.index(text)
            logits[place].append(token.draw.logits)
            drawn[place].append(token.id)
    for place, prompt in enumerate(prompts):
        yield mx.concatenate(logits[place]), family.expected(prompt, drawn[place])


def _cache(config: ModelConfig, *, batch_size: int = 1) -> KVCache:
    return new_cache(cache_size(config, max_seq_len=CAPACITY, batch_size=batch_size, dtype=DTYPE))


def _tokens(count: int) -> list[int]:
    return [(17 * place * place + 31 * place + 5) % BASE["vocab_size"] for place in range(count)]
