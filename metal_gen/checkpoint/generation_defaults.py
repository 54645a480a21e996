"""Reads a checkpoint's own generation_config.json."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from metal_gen.config.checks import with_value
from metal_gen.config.settings import SETTINGS
from metal_gen.config.switched import value_in_force
from metal_gen.errors import CheckpointError
from metal_gen.files.json_file import read_json
from metal_gen.models.config.fields import quoted

FILE = "generation_config.json"
# Settings of random sampling, which count only with `do_sample`.
DRAWN = ("temperature", "top_k", "top_p", "min_p")
# Values in the file that have no effect.
IDLE = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0}


def read_generation_config(folder: Path) -> dict[str, Any]:
    """Return the object in generation_config.json, or an empty one if there is no file."""
    path = folder / FILE
    return read_json(path) if path.is_file() else {}


def sampling_defaults(
    generation_config: Mapping[str, Any], replaced: Collection[str] = (), source: str = FILE
) -> dict[str, object]:
    """Return the file's sampling settings, by setting name.

    As in transformers, settings of random sampling count only with `do_sample`. `top_k` 0 and `top_p` 1
    mean no filter.

    Args:
        generation_config: The object in the file.
        replaced: Settings that are set elsewhere; the file's values are not checked.
        source: Name of the object in error messages.

    Raises:
        CheckpointError: A value is out of its range.
    """
    drawn = DRAWN if generation_config.get("do_sample") else ()
    values: dict[str, object] = {"temperature": 1.0} if drawn else {}
    for name in (*drawn, "repetition_penalty"):
        value = generation_config.get(name)
        if value is None or name in replaced or value == IDLE.get(name):
            continue
        check = SETTINGS[name].check
        try:
            in_force = value_in_force(check, check(value))
        except ValueError as error:
            raise CheckpointError(
                f"{source}: {name} {with_value(error, quoted(value))}",
                f"replace it with {SETTINGS[name].flag}",
            ) from None
        if in_force is not None:
            values[name] = in_force
    return values


def invalid_and_unused(generation_config: Mapping[str, Any], replaced: Collection[str] = ()) -> list[str]:
    """Return the names and values that `sampling_defaults` would refuse if the file had `do_sample`.

    Args:
        generation_config: The object in the file.
        replaced: Settings that are set elsewhere; the file's values are not checked.
    """
    if generation_config.get("do_sample"):
        return []
    found = []
    for name in DRAWN:
        value = generation_config.get(name)
        if value is None or name in replaced or value == IDLE.get(name):
            continue
        try:
            SETTINGS[name].check(value)
        except ValueError:
            found.append(f"{name} {quoted(value)}")
    return found


def token_ids(value: object) -> frozenset[int]:
    """Read a field that is a token id, a list of them, or null."""
    ids = value if isinstance(value, list) else [value]
    return frozenset(token for token in ids if isinstance(token, int) and not isinstance(token, bool))
