"""A short summary of any model's config.json, supported or not."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from metal_gen.excerpt import excerpt


@dataclass(frozen=True)
class ConfigSummary:
    """A model in three words. Each is None if config.json does not say.

    Attributes:
        model_type: Family, as in `qwen3`.
        dtype: Dtype of the stored weights, or of the weights before quantization.
        quantization: Method and bits: `4-bit`, `gptq 4-bit`, `fp8`.
    """

    model_type: str | None = None
    dtype: str | None = None
    quantization: str | None = None

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> "ConfigSummary":
        """Read the fields of a config.json. Any of them may be missing or of an unexpected type."""
        dtype = config.get("dtype") or config.get("torch_dtype")
        # MLX writes the first, everybody else the second. MLX checkpoints may have both.
        quantization = config.get("quantization") or config.get("quantization_config")
        return cls(
            model_type=_text(config.get("model_type")),
            dtype=_text(dtype),
            quantization=_describe(quantization) if quantization else None,
        )


def _describe(quantization: object) -> str:
    if not isinstance(quantization, Mapping):
        return "quantized"
    method = _text(quantization.get("quant_method"))
    bits = quantization.get("bits")
    words = [method] if method else []
    if isinstance(bits, int):
        words.append(f"{excerpt(bits)}-bit")
    return " ".join(words) or "quantized"


def _text(value: object) -> str | None:
    return excerpt(value) if isinstance(value, str) and value else None
