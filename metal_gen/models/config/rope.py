"""How positions are embedded: the fields of `rope_parameters`, or of `rope_scaling` in older files."""

from collections.abc import Mapping
from dataclasses import dataclass

from metal_gen.config.rope_scaling import ROPE_TYPES, RopeFields
from metal_gen.models.config.fields import FieldReader
from metal_gen.models.config.language_part import family
from metal_gen.models.config.linear_attention import HYBRIDS


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
    partial_rotary_factor: float = 1.0


def read_rope(config: FieldReader, max_positions: int, scaling: RopeFields) -> RopeConfig:
    """Read the fields of a config.json that tell how positions are embedded.

    Args:
        config: The whole of it.
        max_positions: The length that the model was trained for, or was made for.
        scaling: Fields that are laid over its own.

    Raises:
        CheckpointError: They contradict each other, or ask for something that is not computed here.
    """
    if config.fields.get("rope_scaling") and config.fields.get("rope_parameters"):
        raise config.error("it has rope_scaling and rope_parameters", "put it all into rope_parameters")
    parameters = config.fields.get("rope_scaling") or config.fields.get("rope_parameters") or {}
    if not isinstance(parameters, Mapping):
        raise config.error("rope_parameters must be an object")
    if any(isinstance(value, Mapping) for value in parameters.values()):
        raise config.error("rope_parameters differ by kind of attention, and that is not supported")
    parameters = {**parameters, **dict(scaling)}
    reader = FieldReader(parameters, f"{config.source}, rope_parameters")
    rope_type = parameters.get("rope_type", parameters.get("type", "default"))
    theta = reader.number("rope_theta", config.number("rope_theta", 10000.0))
    if rope_type == "mrope":  # Its axes are equal for text.
        rope_type = "default"
    if rope_type not in ROPE_TYPES:
        raise reader.error(f"rope_type {rope_type!r} is not supported", f"{', '.join(ROPE_TYPES)} are")
    partial = reader.number("partial_rotary_factor", config.number("partial_rotary_factor", 1.0))
    if partial != 1.0 and family(str(config.fields.get("model_type"))) not in HYBRIDS:
        raise reader.error(f"partial_rotary_factor is {partial:g}, and only 1 is computed")
    if rope_type == "default":
        return RopeConfig(rope_theta=theta, partial_rotary_factor=partial)
    original = max_positions
    implied_factor = None
    if rope_type == "yarn":
        inner = reader.integer("original_max_position_embeddings", max_positions)
        is_given = "original_max_position_embeddings" in dict(scaling)
        original = inner if is_given else config.integer("original_max_position_embeddings", inner)
        implied_factor = max_positions / original if "factor" in parameters else None
    return RopeConfig(
        rope_theta=theta,
        rope_type=rope_type,
        factor=reader.number("factor", implied_factor),
        original_max_position_embeddings=original,
        attention_factor=reader.optional_number("attention_factor"),
        beta_fast=reader.optional_number("beta_fast") or 32.0,
        beta_slow=reader.optional_number("beta_slow") or 1.0,
        mscale=reader.optional_number("mscale"),
        mscale_all_dim=reader.optional_number("mscale_all_dim"),
        truncate=reader.flag("truncate", True),
        partial_rotary_factor=partial,
    )
