"""Texts with a guide that end in the middle of a step: the next text reuses what is in the cache."""

from itertools import product

import pytest
from cpp_kernel import CppKernels, needs_compiler
from on_device import cpu_only
from repeating_guides import CAPACITY, PROMPT, SETS, places
from scripted_guide import ScriptedGuide
from speculated import STRATEGIES, decoder_for, sampler_for
from tiny_checkpoint import hybrid_configs, tiny_config, write_checkpoint

from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.engine.cached_text import CachedText
from metal_gen.engine.guided import generate_guided_tokens
from metal_gen.models.kernels.choice import BY_KERNEL
from metal_gen.models.kernels.chosen import ModelKernels
from metal_gen.models.kernels.dialect import Code
from metal_gen.models.kernels.fitted import fitted

pytestmark = [pytest.mark.metal, pytest.mark.usefixtures("without_fusing")]

HEADS = {"head_dim": 32, "num_attention_heads": 4, "num_key_value_heads": 2}
TAIL = [9, 8, 7]


class Interrupted(ScriptedGuide):
    """Is interrupted when it is asked after so many tokens."""

    def __init__(self, after):
        super().__init__(
            lambda tokens: SETS[places(tokens, 17)[1] == 16], lambda tokens: [11, 12] * (len(tokens) == 28)
        )
        self.after = after

    def allowed(self):
        if len(self.tokens) == self.after:
            raise KeyboardInterrupt
        return super().allowed()


def tokens_until_interrupted(decoder, cached, after):
    guide, taken = Interrupted(after), []
    cached.begin(PROMPT)
    tokens = generate_guided_tokens(
        decoder, cached.prefill(), sampler_for(PROMPT, STRATEGIES["flat"]), guide, endings={}
    )

    def take():
        for token in tokens:
            cached.add(token.id)
            taken.append(token.id)

    with pytest.raises(KeyboardInterrupt):
        take()
    # The guide may know what was not yet yielded.
    assert guide.tokens[: len(taken)] == taken
    return taken


@needs_compiler
@cpu_only
@pytest.mark.parametrize(("name", "compiles"), [*product(["qwen3", "qwen3_5"], [False, True])])
def test_the_text_after_an_interrupted_one_is_computed_from_what_was_yielded(
    tmp_path, monkeypatch, programs, make_cache, name, compiles
):
    monkeypatch.setattr(Code, "__call__", CppKernels(programs).as_method)
    config = {
        **(tiny_config("qwen3") if name == "qwen3" else dict(hybrid_configs())["qwen3_5-untied"]),
        **HEADS,
    }
    model = Checkpoint(write_checkpoint(tmp_path, config)).weights.load("float32")
    by_kernel = fitted(model, ModelKernels(attention=BY_KERNEL))
    used, fresh = (
        decoder_for(by_kernel, make_cache(by_kernel, max_seq_len=CAPACITY), compiles=compiles)
        for _ in range(2)
    )
    cached = CachedText(used, goes_on=True)
    # Neither expected nor sure, in the place of another, before and after forced tokens.
    for after in (0, 2, 7, 15, 16, 17, 27, 30, 31):
        prompt = PROMPT + tokens_until_interrupted(used, cached, after) + TAIL
        kept = cached.begin(prompt)
        assert name == "qwen3_5" or kept >= len(prompt) - len(TAIL) - 1
        found = cached.prefill()
        fresh.cache.clear()
        assert abs(found - fresh.prefill(prompt)).max().item() < 1e-4
