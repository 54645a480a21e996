"""Reads adapters as PEFT saves them.

Source: `config.py`, `layer.py` and `model.py` of peft 0.21's `tuners/lora`, and its
`utils/save_and_load.py`.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from metal_gen.checkpoint.adapters.low_rank import Factor, LowRank
from metal_gen.checkpoint.adapters.tensors import AdapterTensors, pair_of, require_floats
from metal_gen.excerpt import excerpt
from metal_gen.files.safetensors_header import TensorInfo
from metal_gen.models.config.fields import FieldReader, quoted

WEIGHTS_FILE = "adapter_model.safetensors"
# PEFT adapts an embedding and its tied head separately.
MOVES_TIED_HEAD = False
PREFIX = "base_model.model."
# Parts that PEFT inserts between a module's name and its tensor when it wraps the module.
WRAPPERS = re.compile(r"\.(base_layer|modules_to_save)(?=\.)")
LINEAR_FACTORS = ("lora_A", "lora_B")
EMBEDDING_FACTORS = ("lora_embedding_A", "lora_embedding_B")
FACTOR = re.compile(rf"(.+)\.({'|'.join((*LINEAR_FACTORS, *EMBEDDING_FACTORS))})(?:\.weight)?")
# A name in `rank_pattern` or `alpha_pattern`, where a dot may be escaped as in a regular expression.
MODULE_PATTERN = re.compile(r"\^?((?:[A-Za-z0-9_-]|\\?\.)+)\$?")
# Limit on the parts of a module's name, above that of any model.
MOST_PARTS = 32
# Each of these changes the result if it is set.
UNSUPPORTED = (
    "lora_bias",
    "layer_replication",
    "target_parameters",
    "trainable_token_indices",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
)
# These initialize A and B and leave the model as it is. Others change the model.
HARMLESS_BEGINNINGS = (None, True, False, "gaussian", "eva", "orthogonal")
MERGE_HINT = "merge it first, with peft's merge_and_unload, and save the model"


def require_supported(fields: FieldReader) -> None:
    """Check that adapter_config.json asks only for sums of matrices.

    Raises:
        CheckpointError: It asks for something else.
    """
    kind = fields.fields["peft_type"]
    if kind != "LORA":
        raise fields.error(f"peft_type is {quoted(kind)}, and only LORA is supported", MERGE_HINT)
    for name, value in fields.fields.items():
        is_variant = name.startswith("use_") and name != "use_rslora"
        if value and (is_variant or name in UNSUPPORTED):
            raise fields.error(f"{excerpt(name)} is set, which is not supported", MERGE_HINT)
    beginning = fields.fields.get("init_lora_weights")
    if beginning not in HARMLESS_BEGINNINGS:
        raise fields.error(
            f"init_lora_weights is {quoted(beginning)}, which changes the model's own weights", MERGE_HINT
        )


def sort_tensors(tensors: Mapping[str, TensorInfo], fields: FieldReader) -> AdapterTensors:
    """Separate low-rank factors from whole tensors.

    Args:
        tensors: Tensors by their names in the file.
        fields: Fields of adapter_config.json.

    Raises:
        CheckpointError: A factor has no partner, or a field is wrong.
    """
    require_floats(tensors)
    factors: dict[str, dict[str, TensorInfo]] = {}
    whole = {}
    for name, info in tensors.items():
        plain = name.removeprefix(PREFIX)
        if match := FACTOR.fullmatch(plain):
            factors.setdefault(match[1], {})[match[2]] = info
        else:
            whole[WRAPPERS.sub("", plain)] = info
    scales = _Scales(fields)
    return AdapterTensors({name: _low_rank(name, found, scales) for name, found in factors.items()}, whole)


def _low_rank(name: str, found: Mapping[str, TensorInfo], scales: "_Scales") -> LowRank:
    """Pair two factors: A (r, in) and B (out, r), or for an embedding A (r, V) and B (hidden, r)."""
    rank, scale = scales.of(name)
    if EMBEDDING_FACTORS[0] in found or EMBEDDING_FACTORS[1] in found:
        up, down = pair_of(found, EMBEDDING_FACTORS)
        return LowRank(Factor(down, True), Factor(up, True), rank, scale)
    down, up = pair_of(found, LINEAR_FACTORS)
    return LowRank(Factor(down, False), Factor(up, False), rank, scale)


class _Scales:
    """Rank and scale of each matrix."""

    def __init__(self, fields: FieldReader) -> None:
        self.fields = fields
        self.uses_root = fields.flag("use_rslora", False)
        self.ranks = _Patterns(fields, "rank_pattern")
        self.alphas = _Patterns(fields, "alpha_pattern")

    def of(self, name: str) -> tuple[int, float]:
        rank_key, alpha_key = self.ranks.matching(name), self.alphas.matching(name)
        rank = self.fields.integer("r", 8) if rank_key is None else self.ranks.values.integer(rank_key)
        alpha = (
            self.fields.number("lora_alpha", 8) if alpha_key is None else self.alphas.values.number(alpha_key)
        )
        return rank, alpha / (math.sqrt(rank) if self.uses_root else rank)


class _Patterns:
    """Values for single matrices, by the ends of their modules' names.

    PEFT treats the names as regular expressions. Anything but a plain name is refused, because a regular
    expression from a file can take forever.
    """

    def __init__(self, fields: FieldReader, field_name: str) -> None:
        given: Any = fields.fields.get(field_name) or {}
        if not isinstance(given, Mapping):
            raise fields.error(f"{field_name} must be an object")
        self.values = FieldReader(given, f"{field_name} of {fields.source}")
        # By name and whether it is a module's whole name; the first of equivalent patterns.
        self._keys: dict[tuple[str, bool], tuple[int, str]] = {}
        for place, pattern in enumerate(given):
            name = MODULE_PATTERN.fullmatch(pattern)
            if name is None:
                raise fields.error(
                    f"{field_name} has {quoted(pattern)}, and only module names are supported, "
                    "not regular expressions",
                    MERGE_HINT,
                )
            is_whole = pattern.startswith("^")
            self._keys.setdefault((name[1].replace("\\", ""), is_whole), (place, pattern))

    def matching(self, name: str) -> str | None:
        """Return the first pattern that matches the end of a module's name."""
        parts = name.split(".", MOST_PARTS)
        ends = [".".join(parts[begin:]) for begin in range(len(parts))] if len(parts) <= MOST_PARTS else []
        found = [self._keys[end, False] for end in ends if (end, False) in self._keys]
        if (name, True) in self._keys:
            found.append(self._keys[name, True])
        return min(found)[1] if found else None
