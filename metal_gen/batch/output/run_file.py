"""The file next to an output that records which run made it, so that no other run continues it."""

import errno
import json
import os
import socket
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from metal_gen.batch.input.stream import InputStream
from metal_gen.batch.output.input_mark import InputMark, mark_from, mark_input, what_changed
from metal_gen.checkpoint.bundled import BUNDLED_NAME
from metal_gen.errors import MetalGenError, UsageError
from metal_gen.files.bounded_file import read_bounded
from metal_gen.files.json_file import parse_json
from metal_gen.files.paths import FULL, why_not_written
from metal_gen.files.whole_file import WholeFile, write_whole
from metal_gen.sampling.seed import choose_seed

FORMAT = 2
# Far more than a run file needs.
LONGEST_BYTES = 2**24
LONGEST_SHOWN = 80
SEED = "seed"
# When the run began: chat templates see the same time in all rows, also after a resume.
MOMENT = "moment"
HINT = "give --overwrite to start over, or name another output"
# Values that are digests, which tell a person nothing.
DIGESTS = {
    "checkpoint": "the model's files differ from those that {output} was started with",
    "adapters": "the adapters or their scales differ from those that {output} was started with",
}

Value = str | int | None
Fingerprint = Mapping[str, Value]


@dataclass(frozen=True)
class _Begun:
    """The contents of a run file."""

    run: dict[str, Value]
    seed: int
    moment: datetime | None
    input: InputMark | None


class RunFile:
    """Records which run makes an output.

    Args:
        output: Path of the output.
        fingerprint: Values that its records depend on. A seed of None means to choose one, or to use the one
            chosen before. The key `moment` is present, with value None, if the records depend on the time.
        input: The input file; None for a stream, which cannot be compared.

    Attributes:
        path: Path of the run file.
        seed: Seed of the run, once it has begun.
        moment: Time when the run began, if the records depend on it.

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
        """Start an output and discard the records of an older one.

        Args:
            empty: Discards them; called once there is sure to be room for the run file.

        Raises:
            OSError: The run file cannot be written; an older one is unchanged.
        """
        seed = self._fingerprint.get(SEED)
        self.seed = choose_seed() if seed is None else int(seed)
        if MOMENT in self._fingerprint:
            self.moment = datetime.now().replace(microsecond=0)
        with self._naming_what_cannot_be_written():
            file = WholeFile(self.path, follows_link=False)
        with file:
            file.write(self._content)
            file.sync()
            # Old records must never be next to the run file of a new run.
            empty()
            file.commit()

    def go_on(
        self, failed_lines: Callable[[], Collection[int]] = frozenset, *, retry_failed: bool = False
    ) -> None:
        """Check that the output belongs to the same run and the same input, which may have grown.

        Args:
            failed_lines: Returns the numbers of the lines whose rows failed.
            retry_failed: These are run again, so they may have changed.

        Raises:
            UsageError: The output belongs to another run, or its run is unknown.
            OSError: The run file cannot be written.
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
        self._require_input_of(begun.input, failed_lines, retry_failed=retry_failed)
        self.seed = begun.seed
        with self._naming_what_cannot_be_written():
            write_whole(self.path, self._content, follows_link=False)

    def require_same_input(self) -> None:
        """Check that the input has not changed since the run began; lines may have been added at its end.

        Raises:
            MetalGenError: The input has changed, or it cannot be read.
        """
        if self._input is None or self._mark is None or not self._input.was_written():
            return
        if changed := what_changed(self._input, self._mark):
            raise MetalGenError(
                f"{self._input.name} was changed by another process during the run: {changed}",
                "the output mixes records of old and new rows; give --overwrite to start over",
            )

    def restore(self) -> None:
        """Write the run file again if it has been deleted: without it the output cannot be resumed.

        Raises:
            OSError: The file cannot be written.
        """
        if not os.path.lexists(self.path):
            write_whole(self.path, self._content, follows_link=False)

    def remove(self) -> None:
        """Delete the run file of an empty output."""
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

    @contextmanager
    def _naming_what_cannot_be_written(self) -> Iterator[None]:
        """Name the run file in place of the output, unless the disk is full or the name too long for both."""
        try:
            yield
        except OSError as error:
            if error.errno in (*FULL, errno.ENAMETOOLONG):
                raise
            reason, _ = why_not_written(error, self.path)
            raise UsageError(
                f"the run file {self.path} cannot be written: {reason}",
                "it belongs next to the output: remove what is there, or name another output",
            ) from None

    def _read(self) -> _Begun:
        output, path = self._output, self.path
        try:
            document = _read_document(path)
            if document.get("format") == 1:
                raise UsageError(f"{output} was started by an older metal-gen", HINT)
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
                f"the run that made {output} is unknown: there is no {path}",
                f"if the output was renamed, rename the .run.json file next to it too; or {HINT}",
            ) from None
        except (ValueError, KeyError):
            raise UsageError(f"the run that made {output} is unknown: {path} is damaged", HINT) from None
        except OSError as error:
            raise UsageError(
                f"the run file {path} cannot be read: {error.strerror}",
                f"it says which run made {output}: remove it and give --overwrite to start over",
            ) from None

    def _require_input_of(
        self, begun: InputMark | None, failed_lines: Callable[[], Collection[int]], *, retry_failed: bool
    ) -> None:
        if begun == self._mark:
            return
        output = self._output
        if begun is None or self._input is None:
            then, now = ("a pipe", "a file") if begun is None else ("a file", "a pipe")
            raise UsageError(f"{output} was started with rows from {then}, but this run has {now}", HINT)
        if (changed := what_changed(self._input, begun)) is None:
            return
        only_failed = what_changed(self._input, begun, may_differ=failed_lines()) is None
        if only_failed and retry_failed:
            return
        hint = "give the original input; rows may be added at its end. Or give --overwrite to start over"
        if only_failed:
            hint = "only rows that failed have changed: --retry-failed runs them again"
        raise UsageError(f"{self._input.name} has changed since {output} was started: {changed}", hint)


def run_path(output: Path) -> Path:
    """Return the path of an output's run file."""
    return output.parent / f".{output.name}.run.json"


def last_writer(output: Path) -> str:
    """Return a name for the process that wrote or writes an output."""
    try:
        writer = _read_document(run_path(output)).get("writer")
    except (OSError, ValueError):
        writer = None
    return writer[:LONGEST_SHOWN] if isinstance(writer, str) else "one that has just started"


def _read_document(path: Path) -> dict[str, Any]:
    """Read a run file.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file is damaged.
    """
    # Do not follow a link that somebody may have put there.
    if path.is_symlink():
        raise ValueError
    document = parse_json(read_bounded(path, LONGEST_BYTES))
    if not isinstance(document, dict):
        raise ValueError
    return document


def _another(output: Path, name: str, begun: object, wanted: object) -> UsageError:
    if name in DIGESTS:
        return UsageError(
            DIGESTS[name].format(output=output), "give the original ones, or --overwrite to start over"
        )
    return UsageError(
        f"{output} was started with {_shown(name, begun)}, but this run has {_shown(name, wanted)}",
        f"give the same {name}, or --overwrite to start over",
    )


def _shown(name: str, value: object) -> str:
    if value is None:
        return f"no {name}"
    text = str(value) if value == BUNDLED_NAME else f"{name} {value}"
    return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - 3]}..."
