"""Translates the names of tensors between a GGUF file and Hugging Face's layout.

Source: `gguf-py/gguf/constants.py` and `gguf-py/gguf/tensor_mapping.py` of https://github.com/ggml-org/llama.cpp
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
NAMES_IN_LAYERS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "ffn_gate_inp": "mlp.gate",
    "ffn_gate_exps": "mlp.switch_mlp.gate_proj",
    "ffn_up_exps": "mlp.switch_mlp.up_proj",
    "ffn_down_exps": "mlp.switch_mlp.down_proj",
    "ffn_gate_inp_shexp": "mlp.shared_expert_gate",
    "ffn_gate_shexp": "mlp.shared_expert.gate_proj",
    "ffn_up_shexp": "mlp.shared_expert.up_proj",
    "ffn_down_shexp": "mlp.shared_expert.down_proj",
}
# In models with linear attention.
NAMES_OF_HYBRIDS = {
    "post_attention_norm": "post_attention_layernorm",
    "attn_qkv": "linear_attn.in_proj_qkv",
    "attn_gate": "linear_attn.in_proj_z",
    "ssm_beta": "linear_attn.in_proj_b",
    "ssm_alpha": "linear_attn.in_proj_a",
    "ssm_in": "linear_attn.in_proj_qkvz",
    "ssm_ba": "linear_attn.in_proj_ba",
    "ssm_conv1d": "linear_attn.conv1d",
    "ssm_norm": "linear_attn.norm",
    "ssm_out": "linear_attn.out_proj",
}
# Names that do not end with `.weight` or `.bias` in both layouts.
WHOLE_NAMES_OF_HYBRIDS = {"ssm_a": "linear_attn.A_log", "ssm_dt.bias": "linear_attn.dt_bias"}
# In layers for multi-token prediction, which follow the model's own layers.
NAMES_OF_MTP = {
    "nextn.eh_proj": "fc",
    "nextn.enorm": "pre_fc_norm_embedding",
    "nextn.hnorm": "pre_fc_norm_hidden",
    "nextn.shared_head_norm": "norm",
    "nextn.embed_tokens": "embed_tokens",
    "nextn.shared_head_head": "lm_head",
}
IN_A_LAYER = re.compile(r"blk\.(\d{1,6})\.(.+)")
IN_A_MODEL_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")


@dataclass(frozen=True)
class TensorNames:
    """Translates the names of one file.

    Args:
        layers: The number of the model's own layers.
        is_hybrid: Whether the model has linear attention.
    """

    layers: int
    is_hybrid: bool

    @property
    def _in_layers(self) -> Mapping[str, str]:
        if not self.is_hybrid:
            return NAMES_IN_LAYERS
        shared = {ours: theirs for ours, theirs in NAMES_IN_LAYERS.items() if ours != "ffn_norm"}
        return shared | NAMES_OF_HYBRIDS

    def in_model(self, name: str) -> str:
        """Return the name of a tensor in Hugging Face's layout, or its own if it has no place there."""
        layer = IN_A_LAYER.fullmatch(name)
        if layer is None:
            part, _, kind = name.rpartition(".")
            return f"{NAMES[part]}.{kind}" if part in NAMES else name
        index, rest = int(layer[1]), layer[2]
        part, _, kind = rest.rpartition(".")
        if self.is_hybrid and index >= self.layers and part in NAMES_OF_MTP:
            return f"mtp.{NAMES_OF_MTP[part]}.{kind}"
        place = f"model.layers.{index}"
        if self.is_hybrid and index >= self.layers:
            place = f"mtp.layers.{index - self.layers}"
        if self.is_hybrid and rest in WHOLE_NAMES_OF_HYBRIDS:
            return f"{place}.{WHOLE_NAMES_OF_HYBRIDS[rest]}"
        known = part in self._in_layers and kind in ("weight", "bias")
        return f"{place}.{self._in_layers[part]}.{kind}" if known else name

    def in_file(self, name: str) -> str:
        """Return the name in the file of a tensor in Hugging Face's layout."""
        layer = IN_A_MODEL_LAYER.fullmatch(name)
        if layer is None:
            part, _, kind = name.rpartition(".")
            return f"{_turned(NAMES).get(part, part)}.{kind}"
        if whole := _turned(WHOLE_NAMES_OF_HYBRIDS).get(layer[2]):
            return f"blk.{layer[1]}.{whole}"
        part, _, kind = layer[2].rpartition(".")
        return f"blk.{layer[1]}.{_turned(self._in_layers).get(part, part)}.{kind}"


def _turned(names: Mapping[str, str]) -> dict[str, str]:
    return {theirs: ours for ours, theirs in names.items()}
