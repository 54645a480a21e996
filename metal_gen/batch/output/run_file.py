"""The file beside an output that says which run made it, so that no other run goes on with it."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

from metal_gen.errors import UsageError
from metal_gen.sampling.seed import choose_seed

DIGEST = re.compile(r"\b([0-9a-f]{8})[0-9a-f]{56}\b")
FORMAT = 1
SEED = "seed"
HINT = "give --overwrite to begin again, or name another output"

Value = str | int | None
Fingerprint = Mapping[str, Value]


def run_path(output: Path) -> Path:
    """Where the file of an output is."""
    return output.parent / f".{output.name}.run.json"


def begin_run(output: Path, fingerprint: Fingerprint) -> int:
    """Write down which run makes an output.

    Args:
        output: Its path.
        fingerprint: What its records depend on; a seed of None is chosen here.

    Returns:
        The seed.

    Raises:
        OSError: The file cannot be written; an older one is as before.
    """
    seed = fingerprint.get(SEED)
    if seed is None:
        seed = choose_seed()
    document = {"format": FORMAT, "run": {**fingerprint, SEED: seed}}
    replace_file(run_path(output), json.dumps(document, indent=2).encode() + b"\n")
    return int(seed)


def continue_run(output: Path, fingerprint: Fingerprint) -> int:
    """See that an output is of the same run.

    Args:
        output: Its path.
        fingerprint: As for `begin_run`; a seed of None is the one that was chosen.

    Returns:
        The seed.

    Raises:
        UsageError: It is of another run, or nothing says of which.
    """
    path = run_path(output)
    try:
        document = json.loads(path.read_bytes())
        begun, seed = dict(document["run"]), int(document["run"][SEED])
        if document["format"] != FORMAT:
            raise ValueError
    except FileNotFoundError:
        raise UsageError(f"nothing says which run made {output}: there is no {path}", HINT) from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UsageError(f"nothing says which run made {output}: {path} is damaged", HINT) from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    wanted = dict(fingerprint)
    if wanted.get(SEED) is None:
        wanted[SEED] = seed
    for name in (*wanted, *begun):
        if wanted.get(name) != begun.get(name):
            raise UsageError(
                f"{output} was begun with {name} {_shown(begun.get(name))}, "
                f"and this run has {_shown(wanted.get(name))}",
                f"give the same {name}, or --overwrite to begin again",
            )
    return seed


def replace_file(path: Path, content: bytes) -> None:
    """Write a file whole, or leave what is there as it is.

    Raises:
        OSError: It cannot be written.
    """
    part = path.parent / f"{path.name}.part"
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _shown(value: Value) -> str:
    """As a person reads it: of digests the beginning."""
    return "none" if value is None else DIGEST.sub(r"\1...", str(value))
