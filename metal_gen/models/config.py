"""The shape of a model: the only reader of config.json's many spellings.

Owns what each field of a Hugging Face `config.json` means here, and which fields cannot be
honoured. Knows nothing of files or arrays.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metal_gen.errors import CheckpointError

# Read here, or without any effect on the computed text.
KNOWN_FIELDS = frozenset(
    """architectures attention_bias attention_dropout auto_map bos_token_id chunk_size_feed_forward
    default_theta dtype eos_token_id head_dim hidden_act hidden_size id2label initializer_range
    intermediate_size is_decoder is_encoder_decoder label2id layer_types max_position_embeddings
    max_window_layers mlp_bias model_type name_or_path num_attention_heads num_hidden_layers
    num_key_value_heads original_max_position_embeddings output_attentions output_hidden_states
    pad_token_id pretraining_tp problem_type return_dict rms_norm_eps rope_parameters rope_scaling
    rope_theta sliding_window tie_word_embeddings torch_dtype transformers_version use_cache
    use_mrope use_sliding_window vocab_size _name_or_path _attn_implementation
    partial_rotary_factor quantization quantization_config""".split()
)

LARGEST_INTEGER = 2**31 - 1
LARGEST_NUMBER = 1e12

# Fields that change the text, with the one value that is computed here.
REQUIRED_VALUES: dict[str, object] = {
    "hidden_act": "silu",
    "is_encoder_decoder": False,
    "mlp_bias": False,
    "partial_rotary_factor": 1.0,
    "pretraining_tp": 1,
    "use_mrope": False,
}


@dataclass(frozen=True, kw_only=True)
class RopeConfig:
    """Rotary position embedding: its base and how it is stretched beyond the trained length."""

    rope_theta: float
    rope_type: str = "default"
    factor: float = 1.0
    original_max_position_embeddings: int = 0
    attention_factor: float | None = None
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A dense Qwen decoder, in Hugging Face's own field names."""

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
    unknown_fields: tuple[str, ...] = ()

    @property
    def context_length(self) -> int:
        """Tokens that the model was trained for, or is stretched to by its rope scaling."""
        stretched = int(self.rope.factor * self.rope.original_max_position_embeddings)
        return max(self.max_position_embeddings, stretched)

    @classmethod
    def from_hf(cls, config: Mapping[str, Any], *, source: str = "config.json") -> "ModelConfig":
        """Read the contents of a `config.json`.

        Args:
            config: The parsed JSON object.
            source: What to call it in messages.

        Raises:
            CheckpointError: A field is missing, has a wrong type, contradicts another, or asks
                for something that is not computed here.
        """
        return _ConfigReader(config, source).read()


class _ConfigReader:
    """Reads fields one by one, so that each message can name the file and the field."""

    def __init__(self, config: Mapping[str, Any], source: str) -> None:
        self.config = config
        self.source = source

    def read(self) -> ModelConfig:
        self._refuse_unsupported()
        heads = self._integer("num_attention_heads")
        kv_heads = self._integer("num_key_value_heads", heads)
        hidden_size = self._integer("hidden_size")
        model_type = str(self.config.get("model_type"))
        implied_head_dim = 128 if model_type == "qwen3" else hidden_size // heads
        if heads % kv_heads:
            raise self._error(f"{heads} query heads cannot share {kv_heads} key/value heads evenly")
        layers = self._integer("num_hidden_layers")
        max_positions = self._integer("max_position_embeddings", 32768)
        window, layer_types = self._attention_kinds(layers)
        return ModelConfig(
            model_type=model_type,
            hidden_size=hidden_size,
            intermediate_size=self._integer("intermediate_size"),
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            head_dim=self._integer("head_dim", implied_head_dim),
            vocab_size=self._integer("vocab_size"),
            max_position_embeddings=max_positions,
            rms_norm_eps=self._number("rms_norm_eps", 1e-6),
            tie_word_embeddings=self._flag("tie_word_embeddings", False),
            attention_bias=self._flag("attention_bias", False),
            rope=self._rope(max_positions),
            layer_types=layer_types,
            sliding_window=window,
            unknown_fields=tuple(sorted(set(self.config) - KNOWN_FIELDS)),
        )

    def _refuse_unsupported(self) -> None:
        for name, computed in REQUIRED_VALUES.items():
            if self.config.get(name, computed) not in (computed, None):
                raise self._error(f"{name} is {self.config[name]!r}, and only {computed!r} is computed")
        for name in ("quantization", "quantization_config"):
            if self.config.get(name):
                raise self._error(
                    f"{name} is set, and quantized weights are not supported",
                    "use the checkpoint's float32, bfloat16 or float16 version",
                )

    def _attention_kinds(self, layers: int) -> tuple[int | None, tuple[str, ...]]:
        """The sliding window in use, if any, and each layer's kind of attention."""
        window = None
        if self._flag("use_sliding_window", False) and self.config.get("sliding_window") is not None:
            window = self._integer("sliding_window")
        kinds = self.config.get("layer_types")
        if kinds is None:
            first = self._integer("max_window_layers", 28, minimum=0)
            kinds = [
                "sliding_attention" if window and index >= first else "full_attention"
                for index in range(layers)
            ]
        if not isinstance(kinds, Sequence) or len(kinds) != layers:
            raise self._error(f"layer_types must list {layers} layers")
        for kind in kinds:
            if kind not in ("full_attention", "sliding_attention"):
                raise self._error(f"layer_types has {kind!r}, and that kind of attention is not supported")
        if "sliding_attention" in kinds and window is None:
            raise self._error("layer_types asks for sliding_attention, but no sliding_window is in use")
        return window, tuple(kinds)

    def _rope(self, max_positions: int) -> RopeConfig:
        if self.config.get("rope_scaling") and self.config.get("rope_parameters"):
            raise self._error("it has rope_scaling and rope_parameters", "put it all into rope_parameters")
        parameters = self.config.get("rope_scaling") or self.config.get("rope_parameters") or {}
        if not isinstance(parameters, Mapping):
            raise self._error("rope_parameters must be an object")
        reader = _ConfigReader(parameters, f"{self.source}, rope_parameters")
        rope_type = parameters.get("rope_type", parameters.get("type", "default"))
        theta = reader._number("rope_theta", self._number("rope_theta", 10000.0))
        if rope_type not in ("default", "linear", "dynamic", "yarn"):
            raise reader._error(
                f"rope_type {rope_type!r} is not supported", "default, linear, dynamic and yarn are"
            )
        if parameters.get("partial_rotary_factor", 1.0) != 1.0:
            raise reader._error("partial_rotary_factor is not supported")
        if rope_type == "default":
            return RopeConfig(rope_theta=theta)
        original = max_positions
        implied_factor = None
        if rope_type == "yarn":
            inner = reader._integer("original_max_position_embeddings", max_positions)
            original = self._integer("original_max_position_embeddings", inner)
            implied_factor = max_positions / original if "factor" in parameters else None
        return RopeConfig(
            rope_theta=theta,
            rope_type=rope_type,
            factor=reader._number("factor", implied_factor),
            original_max_position_embeddings=original,
            attention_factor=reader._optional_number("attention_factor"),
            beta_fast=reader._optional_number("beta_fast") or 32.0,
            beta_slow=reader._optional_number("beta_slow") or 1.0,
            mscale=reader._optional_number("mscale"),
            mscale_all_dim=reader._optional_number("mscale_all_dim"),
            truncate=reader._flag("truncate", True),
        )

    def _integer(self, name: str, default: int | None = None, *, minimum: int = 1) -> int:
        value = self.config.get(name)
        value = default if value is None else value
        if value is None:
            raise self._error(f"{name} is missing")
        if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= LARGEST_INTEGER:
            raise self._error(f"{name} must be a whole number of at least {minimum}, not {_short(value)}")
        return value

    def _number(self, name: str, default: float | None = None) -> float:
        value = self.config.get(name)
        value = default if value is None else value
        if value is None:
            raise self._error(f"{name} is missing")
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= LARGEST_NUMBER:
            raise self._error(f"{name} must be a number above 0, not {_short(value)}")
        return float(value)

    def _optional_number(self, name: str) -> float | None:
        return None if self.config.get(name) is None else self._number(name)

    def _flag(self, name: str, default: bool) -> bool:
        value = self.config.get(name)
        value = default if value is None else value
        if not isinstance(value, bool):
            raise self._error(f"{name} must be true or false, not {value!r}")
        return value

    def _error(self, problem: str, hint: str = "") -> CheckpointError:
        return CheckpointError(f"{self.source} cannot be used: {problem}", hint)


def _short(value: object) -> str:
    """A value for a message, which may be of any length."""
    text = repr(value) if not isinstance(value, int) or abs(value) < 10**30 else "a longer number"
    return text if len(text) <= 60 else text[:57] + "..."
