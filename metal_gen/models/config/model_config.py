"""The configuration of a model: the only reader of config.json's many spellings.

Defines what each field of a Hugging Face `config.json` means, and which fields are not supported.
Knows nothing of files or arrays.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metal_gen.config.rope_scaling import RopeFields
from metal_gen.models.config.experts import EXPERT_FIELDS, ExpertsConfig, read_experts
from metal_gen.models.config.fields import FieldReader, quoted
from metal_gen.models.config.language_part import family, language_fields
from metal_gen.models.config.linear_attention import (
    HYBRIDS,
    LINEAR_FIELDS,
    LinearAttentionConfig,
    implied_kinds,
    read_linear_attention,
)
from metal_gen.models.config.rope import RopeConfig, read_rope, unknown_rope_fields

# Fields that are read, and fields that do not affect the generated text.
KNOWN_FIELDS = frozenset(
    """architectures attention_bias attention_dropout auto_map bos_token_id chunk_size_feed_forward
    default_theta dtype eos_token_id head_dim hidden_act hidden_size id2label initializer_range
    intermediate_size is_decoder is_encoder_decoder label2id layer_types max_position_embeddings
    max_window_layers mlp_bias model_type name_or_path num_attention_heads num_hidden_layers
    num_key_value_heads original_max_position_embeddings output_attentions output_hidden_states
    pad_token_id pretraining_tp problem_type return_dict rms_norm_eps rope_parameters rope_scaling
    rope_theta sliding_window tie_word_embeddings torch_dtype transformers_version use_cache
    use_mrope use_sliding_window vocab_size _name_or_path _attn_implementation
    partial_rotary_factor qkv_bias quantization quantization_config""".split()
).union(EXPERT_FIELDS, LINEAR_FIELDS)

# Fields that affect the text, with the only value that is supported.
REQUIRED_VALUES: dict[str, object] = {
    "hidden_act": "silu",
    "is_encoder_decoder": False,
    "mlp_bias": False,
    "pretraining_tp": 1,
    "use_mrope": False,
}

# More than any model has, and few enough to list. Opening the files checks that they hold as many.
MOST_LAYERS = 10_000

# A family's defaults for missing fields, if they differ from the usual ones.
IMPLIED: dict[str, dict[str, Any]] = {
    "qwen3": {"head_dim": 128},
    "qwen2_vl": {"rope_theta": 1e6, "rms_norm_eps": 1e-5},
    "qwen2_5_vl": {"rope_theta": 1e6, "rms_norm_eps": 1e-5},
    "qwen3_vl": {"rope_theta": 5e5, "head_dim": 128},
    "qwen3_vl_moe": {"rope_theta": 5e5},
    "qwen3_next": {"head_dim": 256, "partial_rotary_factor": 0.25},
    "qwen3_5": {"head_dim": 256, "partial_rotary_factor": 0.25},
    "qwen3_5_moe": {"head_dim": 256, "partial_rotary_factor": 0.25},
}


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A Qwen decoder, in Hugging Face's field names.

    Attributes:
        qkv_bias: Whether queries, keys and values have a bias; read for qwen2_moe only.
        intermediate_size: Size of the MLP in layers without experts; 0 if all layers have experts.
        experts: None if all layers have one MLP.
        linear: None if all layers have keys and values.
    """

    model_type: str
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    max_position_embeddings: int
    rms_norm_eps: float
    tie_word_embeddings: bool
    attention_bias: bool
    rope: RopeConfig
    layer_types: tuple[str, ...]
    sliding_window: int | None
    qkv_bias: bool = True
    experts: ExpertsConfig | None = None
    linear: LinearAttentionConfig | None = None
    unknown_fields: tuple[str, ...] = ()

    @property
    def context_length(self) -> int:
        """Number of tokens that the model was trained for, or is stretched to by rope scaling."""
        stretched = int(self.rope.factor * self.rope.original_max_position_embeddings)
        return max(self.max_position_embeddings, stretched)

    @property
    def num_linear_layers(self) -> int:
        """Number of layers with linear attention."""
        return self.layer_types.count("linear_attention")

    @property
    def num_cached_layers(self) -> int:
        """Number of layers with keys and values."""
        return self.num_hidden_layers - self.num_linear_layers

    @classmethod
    def from_hf(
        cls,
        config: Mapping[str, Any],
        *,
        source: str = "config.json",
        rope_scaling: RopeFields = (),
    ) -> "ModelConfig":
        """Read the contents of a `config.json`.

        Args:
            config: The parsed JSON object.
            source: Name of the file in error messages.
            rope_scaling: Fields that override those of its `rope_parameters`.

        Raises:
            CheckpointError: A field is missing, has a wrong type, contradicts another, or asks
                for something that is not supported.
        """
        fields = {name: value for name, value in language_fields(config).items() if value is not None}
        implied = IMPLIED.get(family(str(config.get("model_type"))), {})
        return _ConfigReader({**implied, **fields}, source).read(rope_scaling)


class _ConfigReader(FieldReader):
    """Reads a whole config.json."""

    def read(self, rope_scaling: RopeFields) -> ModelConfig:
        self._refuse_unsupported()
        heads = self.integer("num_attention_heads")
        kv_heads = self.integer("num_key_value_heads", heads)
        hidden_size = self.integer("hidden_size")
        model_type = family(str(self.fields.get("model_type")))
        if heads % kv_heads:
            raise self.error(f"{heads} query heads cannot share {kv_heads} key/value heads evenly")
        layers = self.integer("num_hidden_layers", maximum=MOST_LAYERS)
        max_positions = self.integer("max_position_embeddings", 32768)
        window, layer_types = self._attention_kinds(layers, model_type)
        experts = read_experts(self, model_type)
        head_dim = self.integer("head_dim", hidden_size // heads)
        rope = read_rope(self, head_dim, max_positions, rope_scaling)
        is_dense = experts is None or not all(map(experts.are_in, range(layers)))
        return ModelConfig(
            model_type=model_type,
            hidden_size=hidden_size,
            intermediate_size=self.integer("intermediate_size") if is_dense else 0,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            head_dim=head_dim,
            vocab_size=self.integer("vocab_size"),
            max_position_embeddings=max_positions,
            rms_norm_eps=self.number("rms_norm_eps", 1e-6),
            tie_word_embeddings=self.flag("tie_word_embeddings", False),
            attention_bias=self.flag("attention_bias", False),
            rope=rope,
            layer_types=layer_types,
            sliding_window=window,
            qkv_bias=self.flag("qkv_bias", True),
            experts=experts,
            linear=read_linear_attention(self, model_type),
            unknown_fields=self._unknown_fields(rope, rope_scaling),
        )

    def _refuse_unsupported(self) -> None:
        for name, computed in REQUIRED_VALUES.items():
            if self.fields.get(name, computed) not in (computed, None):
                raise self.error(f"{name} is {quoted(self.fields[name])}, and only {computed!r} is supported")

    def _unknown_fields(self, rope: RopeConfig, rope_scaling: RopeFields) -> tuple[str, ...]:
        # If a setting scales the rope, unused fields of the checkpoint's own scaling are no surprise.
        within = [] if rope_scaling else unknown_rope_fields(self, rope)
        return tuple(sorted([*within, *(set(self.fields) - KNOWN_FIELDS)]))

    def _attention_kinds(self, layers: int, model_type: str) -> tuple[int | None, tuple[str, ...]]:
        """Return the sliding window in use, if any, and each layer's kind of attention."""
        window = None
        if self.flag("use_sliding_window", False) and self.fields.get("sliding_window") is not None:
            window = self.integer("sliding_window")
        kinds = self.fields.get("layer_types")
        known = ("full_attention", "sliding_attention")
        if model_type in HYBRIDS:
            known = ("full_attention", "linear_attention")
            kinds = implied_kinds(self, layers) if kinds is None else kinds
        elif kinds is None:
            first = self.integer("max_window_layers", 28, minimum=0)
            kinds = [
                "sliding_attention" if window and _slides(model_type, index, first) else "full_attention"
                for index in range(layers)
            ]
        if not isinstance(kinds, Sequence) or len(kinds) != layers:
            raise self.error(f"layer_types must list {layers} layers")
        for kind in kinds:
            if kind not in known:
                raise self.error(
                    f"layer_types has {quoted(kind)}, and that kind of attention is not supported"
                )
        if set(kinds) == {"linear_attention"}:
            raise self.error("layer_types has no full_attention, and models without it are not supported")
        if "sliding_attention" in kinds and window is None:
            raise self.error("layer_types asks for sliding_attention, but no sliding_window is in use")
        return window, tuple(kinds)


def _slides(model_type: str, index: int, first: int) -> bool:
    """Return whether a layer has the sliding window, if config.json does not list which layers do."""
    if model_type == "qwen2_moe":
        return index % 2 == 0 and index < first
    return model_type == "qwen3_moe" or index >= first
