"""The setting for RoPE scaling, in the format of config.json's `rope_parameters`."""

import json
from dataclasses import dataclass

from metal_gen.config.checks import Check, Choice, Flag, Real, Whole

ROPE_TYPES = ("default", "linear", "dynamic", "yarn")
_POSITIVE = Real(1e-12, 1e12)

FIELDS: dict[str, Check] = {
    "rope_type": Choice(ROPE_TYPES),
    "factor": Real(1.0, 1e6),
    "original_max_position_embeddings": Whole(1, 2**31 - 1),
    "attention_factor": _POSITIVE,
    "beta_fast": _POSITIVE,
    "beta_slow": _POSITIVE,
    "mscale": _POSITIVE,
    "mscale_all_dim": _POSITIVE,
    "truncate": Flag(),
}
RopeFields = tuple[tuple[str, object], ...]


@dataclass(frozen=True)
class RopeScaling(Check):
    """Fields that override the checkpoint's own."""

    def __call__(self, value: object) -> RopeFields:
        """Accept a mapping, or pairs; `type` is an older name of `rope_type`."""
        try:
            fields: dict[str, object] = dict(value)  # type: ignore[call-overload]
        except (TypeError, ValueError):
            raise ValueError(f"must be {self}") from None
        if "type" in fields:
            fields.setdefault("rope_type", fields.pop("type"))
        for name, given in fields.items():
            if name not in FIELDS:
                raise ValueError(f"has no field {name}; there are {', '.join(FIELDS)}")
            try:
                fields[name] = FIELDS[name](given)
            except ValueError as error:
                raise ValueError(f"cannot be used, {name} {error}") from None
        if "rope_type" not in fields or (fields["rope_type"] != "default" and "factor" not in fields):
            raise ValueError(f"must be {self}")
        return tuple(fields.items())

    def from_text(self, text: str) -> RopeFields:
        """Parse a JSON object."""
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            raise ValueError(f"must be {self}, written as JSON") from None
        return self(value)

    def __str__(self) -> str:
        return "a table with a rope_type and, unless that is default, a factor"
