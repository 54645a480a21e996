"""Reads how positions are embedded, from `rope_parameters`, or `rope_scaling` in older files."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from metal_gen.config.rope_scaling import ROPE_TYPES, RopeFields
from metal_gen.models.config.fields import FieldReader, quoted
from metal_gen.models.config.language_part import family
from metal_gen.models.config.linear_attention import HYBRIDS

# Fields of the object in config.json that apply to every type, or only to images.
COMMON_FIELDS = frozenset(
    """rope_theta rope_type type partial_rotary_factor mrope_section mrope_interleaved
    original_max_position_embeddings""".split()
)
# Additional fields of each type.
TYPE_FIELDS = {
    "linear": frozenset({"factor"}),
    "dynamic": frozenset({"factor"}),
    "yarn": frozenset("factor attention_factor beta_fast beta_slow mscale mscale_all_dim truncate".split()),
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
    partial_rotary_factor: float = 1.0

    def rotated_of(self, head_dim: int) -> int:
        """Return how many numbers of a head of this size are rotated."""
        return int(head_dim * self.partial_rotary_factor)


def read_rope(config: FieldReader, head_dim: int, max_positions: int, scaling: RopeFields) -> RopeConfig:
    """Read the fields of a config.json that describe how positions are embedded.

    Args:
        config: The whole config.json.
        head_dim: Size of a head.
        max_positions: Length that the model was trained for, or made for.
        scaling: Fields that override the file's own.

    Raises:
        CheckpointError: Fields contradict each other, or ask for something that is not supported.
    """
    reader = _rope_fields(config, scaling)
    rope_type = reader.fields.get("rope_type", reader.fields.get("type", "default"))
    theta = reader.number("rope_theta", config.number("rope_theta", 10000.0))
    if rope_type == "mrope":  # For text its axes are equal.
        rope_type = "default"
    if rope_type not in ROPE_TYPES:
        raise reader.error(f"rope_type {quoted(rope_type)} is not supported", f"{', '.join(ROPE_TYPES)} are")
    partial = reader.number("partial_rotary_factor", config.number("partial_rotary_factor", 1.0))
    if partial != 1.0 and family(str(config.fields.get("model_type"))) not in HYBRIDS:
        raise reader.error(f"partial_rotary_factor is {partial:g}, and only 1 is supported")
    rope = RopeConfig(rope_theta=theta, rope_type=rope_type, partial_rotary_factor=partial)
    if rope_type != "default":
        rope = _stretched(rope, reader, config, max_positions, scaling)
    _require_computable(reader, rope, head_dim)
    return rope


def unknown_rope_fields(config: FieldReader, rope: RopeConfig) -> list[str]:
    """Return the rope fields of config.json that have no effect on this configuration."""
    known = COMMON_FIELDS | TYPE_FIELDS.get(rope.rope_type, frozenset())
    return [f"rope_parameters.{name}" for name in _rope_fields(config, ()).fields if name not in known]


def _rope_fields(config: FieldReader, scaling: RopeFields) -> FieldReader:
    """Return the fields of the rope object, under either of its names."""
    if config.fields.get("rope_scaling") and config.fields.get("rope_parameters"):
        raise config.error("it has both rope_scaling and rope_parameters", "keep rope_parameters alone")
    parameters = config.fields.get("rope_scaling") or config.fields.get("rope_parameters") or {}
    if not isinstance(parameters, Mapping):
        raise config.error("rope_parameters must be an object")
    if any(isinstance(value, Mapping) for value in parameters.values()):
        raise config.error("rope_parameters differ by kind of attention, and that is not supported")
    return FieldReader({**parameters, **dict(scaling)}, f"{config.source}, rope_parameters")


def _stretched(
    rope: RopeConfig, reader: FieldReader, config: FieldReader, max_positions: int, scaling: RopeFields
) -> RopeConfig:
    """Return the configuration with the fields of a type that stretches positions."""
    original = max_positions
    implied_factor = None
    if rope.rope_type == "yarn":
        inner = reader.integer("original_max_position_embeddings", max_positions)
        is_given = "original_max_position_embeddings" in dict(scaling)
        original = inner if is_given else config.integer("original_max_position_embeddings", inner)
        implied_factor = max_positions / original if "factor" in reader.fields else None
    return replace(
        rope,
        factor=reader.number("factor", implied_factor),
        original_max_position_embeddings=original,
        attention_factor=reader.optional_number("attention_factor"),
        beta_fast=reader.optional_number("beta_fast") or 32.0,
        beta_slow=reader.optional_number("beta_slow") or 1.0,
        mscale=reader.optional_number("mscale"),
        mscale_all_dim=reader.optional_number("mscale_all_dim"),
        truncate=reader.flag("truncate", True),
    )


def _require_computable(reader: FieldReader, rope: RopeConfig, head_dim: int) -> None:
    """Refuse a configuration that has no valid wavelengths."""
    if rope.partial_rotary_factor > 1:
        raise reader.error(
            f"partial_rotary_factor is {rope.partial_rotary_factor:g}, and no more than 1 can be rotated"
        )
    rotated = rope.rotated_of(head_dim)
    if rotated < 2 or rotated % 2:
        raise reader.error(
            f"{rotated} of the {head_dim} numbers of a head would be rotated, and only pairs can be"
        )
    if rope.rope_type == "dynamic" and rotated == 2:
        raise reader.error("rope_type 'dynamic' needs more than one pair of numbers, and a head has one")
    if rope.rope_type == "yarn" and rope.rope_theta == 1:
        raise reader.error("rope_type 'yarn' needs a rope_theta other than 1")
