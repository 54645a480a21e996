"""The file beside an output that says which run made it, so that no other run goes on with it."""

import json
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from metal_gen.batch.input.stream import InputStream
from metal_gen.batch.output.input_mark import InputMark, mark_from, mark_input, what_changed
from metal_gen.errors import MetalGenError, UsageError
from metal_gen.files.bounded_file import read_bounded
from metal_gen.files.json_file import parse_json
from metal_gen.files.whole_file import WholeFile, write_whole
from metal_gen.sampling.seed import choose_seed

FORMAT = 2
# Far more than there is to say.
LONGEST_BYTES = 2**24
LONGEST_SHOWN = 80
SEED = "seed"
# When a run began: what it says of the time is the same in all rows, whenever it is gone on with.
MOMENT = "moment"
HINT = "give --overwrite to begin again, or name another output"
# What is told by a digest, which says nothing to a person.
DIGESTS = {
    "checkpoint": "the files of the model are others than those that {output} was begun with",
    "adapters": "the adapters, or their scales, are others than those that {output} was begun with",
}

Value = str | int | None
Fingerprint = Mapping[str, Value]


@dataclass(frozen=True)
class _Begun:
    """What a file says."""

    run: dict[str, Value]
    seed: int
    moment: datetime | None
    input: InputMark | None


class RunFile:
    """Says which run makes an output.

    Args:
        output: Its path.
        fingerprint: What its records depend on; a seed of None is chosen, or is the one that was chosen. A
            moment is there, as None, where they depend on the time.
        input: The file of rows; None where it is a stream, which cannot be compared.

    Attributes:
        path: Of the file.
        seed: Of the run, once it has begun.
        moment: When it began, where that matters.

    Raises:
        UsageError: The input cannot be read.
    """

    def __init__(self, output: Path, fingerprint: Fingerprint, input: InputStream | None = None) -> None:
        self.path = run_path(output)
        self.seed = 0
        self.moment: datetime | None = None
        self._output = output
        self._fingerprint = fingerprint
        self._input = input
        self._mark = None if input is None else mark_input(input)

    def begin(self, empty: Callable[[], None]) -> None:
        """Begin an output, of which an older one's records are thrown away.

        Args:
            empty: Throws them away, when there is sure to be room for the file.

        Raises:
            OSError: The file cannot be written; an older one is as before.
        """
        seed = self._fingerprint.get(SEED)
        self.seed = choose_seed() if seed is None else int(seed)
        if MOMENT in self._fingerprint:
            self.moment = datetime.now().replace(microsecond=0)
        with WholeFile(self.path, follows_link=False) as file:
            file.write(self._content)
            file.sync()
            # Records of an older run must not stand beside the name of a new one.
            empty()
            file.commit()

    def go_on(self) -> None:
        """See that the output is of the same run, and of the same input, which may have grown.

        Raises:
            UsageError: It is of another run, or nothing says of which.
            OSError: The file cannot be written.
        """
        begun = self._read()
        wanted = dict(self._fingerprint)
        if wanted.get(SEED) is None:
            wanted[SEED] = begun.seed
        if MOMENT in wanted:
            wanted[MOMENT] = begun.run.get(MOMENT)
            self.moment = begun.moment
        for name in (*wanted, *begun.run):
            if wanted.get(name) != begun.run.get(name):
                raise _another(self._output, name, begun.run.get(name), wanted.get(name))
        self._require_input_of(begun.input)
        self.seed = begun.seed
        write_whole(self.path, self._content, follows_link=False)

    def require_same_input(self) -> None:
        """See that the input has not changed since the run began; lines may have been added at its end.

        Raises:
            MetalGenError: It has, or cannot be read.
        """
        if self._input is None or self._mark is None or not self._input.was_written():
            return
        if changed := what_changed(self._input, self._mark):
            raise MetalGenError(
                f"{self._input.name} was changed by something else while it was read: {changed}",
                "the records are of rows as they were and as they are; give --overwrite to begin again",
            )

    def restore(self) -> None:
        """Write the file again if it has been taken away: without it nothing can be gone on with.

        Raises:
            OSError: It cannot be written.
        """
        if not os.path.lexists(self.path):
            write_whole(self.path, self._content, follows_link=False)

    def remove(self) -> None:
        """Take the file away, of an output in which there is nothing."""
        with suppress(OSError):
            self.path.unlink()

    @property
    def _complete(self) -> dict[str, Value]:
        moment = {} if self.moment is None else {MOMENT: self.moment.isoformat()}
        return {**self._fingerprint, SEED: self.seed, **moment}

    @property
    def _content(self) -> bytes:
        document = {
            "format": FORMAT,
            "writer": f"process {os.getpid()} on {socket.gethostname()}",
            "run": self._complete,
            "input": None if self._mark is None else self._mark.document,
        }
        return json.dumps(document, indent=2).encode() + b"\n"

    def _read(self) -> _Begun:
        output, path = self._output, self.path
        try:
            document = _read_document(path)
            if document.get("format") == 1:
                raise UsageError(f"{output} was begun by an older metal-gen", HINT)
            if document.get("format") != FORMAT or not isinstance(run := document.get("run"), dict):
                raise ValueError
            if type(seed := run.get(SEED)) is not int:
                raise ValueError
            if not all(value is None or isinstance(value, str | int) for value in run.values()):
                raise ValueError
            moment = datetime.fromisoformat(str(run[MOMENT])) if MOMENT in run else None
            return _Begun(run, seed, moment, mark_from(document["input"]))
        except FileNotFoundError:
            raise UsageError(
                f"nothing says which run made {output}: there is no {path}",
                f"if the output was renamed, rename the .run.json file beside it too; or {HINT}",
            ) from None
        except (ValueError, KeyError):
            raise UsageError(f"nothing says which run made {output}: {path} is damaged", HINT) from None
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}") from None

    def _require_input_of(self, begun: InputMark | None) -> None:
        if begun == self._mark:
            return
        output = self._output
        if begun is None or self._input is None:
            then, now = ("a pipe", "a file") if begun is None else ("a file", "a pipe")
            raise UsageError(f"{output} was begun with rows from {then}, and this run has {now}", HINT)
        if changed := what_changed(self._input, begun):
            raise UsageError(
                f"{self._input.name} has changed since {output} was begun: {changed}",
                "give the input as it was; rows may be added at its end. Or give --overwrite to begin again",
            )


def run_path(output: Path) -> Path:
    """Where the file of an output is."""
    return output.parent / f".{output.name}.run.json"


def last_writer(output: Path) -> str:
    """Which process wrote, or writes, an output, as far as that is known."""
    try:
        writer = _read_document(run_path(output)).get("writer")
    except (OSError, ValueError):
        writer = None
    return writer[:LONGEST_SHOWN] if isinstance(writer, str) else "one that has just begun"


def _read_document(path: Path) -> dict[str, Any]:
    """Read the file.

    Raises:
        OSError: It cannot be read.
        ValueError: It is damaged.
    """
    # A link that somebody has put there is not followed.
    if path.is_symlink():
        raise ValueError
    document = parse_json(read_bounded(path, LONGEST_BYTES))
    if not isinstance(document, dict):
        raise ValueError
    return document


def _another(output: Path, name: str, begun: object, wanted: object) -> UsageError:
    if name in DIGESTS:
        return UsageError(
            DIGESTS[name].format(output=output), "give those it was begun with, or --overwrite to begin again"
        )
    return UsageError(
        f"{output} was begun with {name} {_shown(begun)}, and this run has {_shown(wanted)}",
        f"give the same {name}, or --overwrite to begin again",
    )


def _shown(value: object) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - 3]}..."
