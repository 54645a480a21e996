"""Tests that huge numbers in config.json cost nothing before they are refused."""

import pytest
from tiny_checkpoint import tiny_config, tiny_weights, write_checkpoint

from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.errors import CheckpointError

HUGE = 2**31 - 1


@pytest.mark.parametrize(
    ("arch", "changes", "message"),
    [
        ("qwen3", {"num_hidden_layers": 9_999}, "25 tensors are too few for 9999 layers"),
        ("qwen3_moe", {"num_experts": HUGE}, f"are too few for {HUGE} experts in each of 2 layers"),
        (
            "qwen2_moe",
            {"num_experts": 32_768, "decoder_sparse_step": 2},
            "are too few for 32768 experts in each of 1",
        ),
        (
            "qwen3_vl_moe",
            {"num_experts": HUGE},
            f"but config.json requires {HUGE} x 32 x 24",
        ),
        ("qwen3", {"hidden_size": HUGE}, f"is 64 x 32, but config.json requires 64 x {HUGE}"),
        (
            "qwen2",
            {"num_attention_heads": HUGE, "num_key_value_heads": HUGE, "head_dim": HUGE - 1},
            f"but config.json requires {HUGE * (HUGE - 1)}",
        ),
        ("qwen2_moe", {"moe_intermediate_size": HUGE}, f"but config.json requires {HUGE} x 32"),
        ("qwen3_vl_moe", {"moe_intermediate_size": HUGE}, f"but config.json requires 6 x {2 * HUGE} x 32"),
        ("qwen3_next", {"linear_num_value_heads": HUGE - 1}, "but config.json requires"),
        ("qwen3_5", {"linear_key_head_dim": HUGE}, "but config.json requires"),
        ("qwen3_next", {"linear_conv_kernel_dim": HUGE}, f"but config.json requires 160 x 1 x {HUGE}"),
    ],
)
def test_huge_sizes_are_refused_at_once(arch, changes, message, tmp_path):
    config = tiny_config(arch)
    write_checkpoint(tmp_path, config)
    folder = write_checkpoint(tmp_path, {**config, **changes}, tiny_weights(config))
    with pytest.raises(CheckpointError) as caught:
        Checkpoint(folder)
    assert message in caught.value.message


def test_layers_without_experts_are_listed_as_fast_as_there_are_any(tmp_path):
    config = tiny_config("qwen3_moe", mlp_only_layers=[0] * 50_000)
    assert Checkpoint(write_checkpoint(tmp_path, config)).config.experts.mlp_only_layers == {0}
