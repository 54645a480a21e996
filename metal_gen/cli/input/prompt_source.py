"""Reads the prompt from standard input, `--prompt-file`, `--prompt`, or several of them."""

import os
import select
import stat
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from metal_gen.cli.output.output_file import STREAM
from metal_gen.cli.terminal.console import Console
from metal_gen.cli.terminal.streams import is_terminal
from metal_gen.errors import DoesNotFitError, UsageError
from metal_gen.files.missing_file import how_to_read
from metal_gen.text.decoding import Pipe, decode_text

SILENCE_S = 2.0
STDIN = "standard input"
# For hints.
READER = "generate ..."
# Bytes read before asking for the maximum prompt size, which requires the model.
PART_BYTES = 1 << 20


def read_prompt(
    flags: Sequence[str], file: str | None, console: Console, most_bytes: Callable[[], int]
) -> str | None:
    """Join the parts of the prompt with newlines: piped text, then the file, then `--prompt`.

    One newline at the end of a file or of piped text is removed: the one that ends its last line.

    Args:
        flags: Values of `--prompt`, at most one; `-` is standard input.
        file: Value of `--prompt-file`; `-` is standard input.
        console: Shows what the program waits for.
        most_bytes: Returns the maximum bytes of a prompt; called only for a long one.

    Returns:
        None without a prompt: no option is given, and standard input is a terminal, /dev/null or closed.

    Raises:
        UsageError: The prompt is empty, is not UTF-8, or cannot be read; or an option is given twice.
        DoesNotFitError: A file or a stream has more bytes than a prompt can have; the rest is not read.
    """
    if len(flags) > 1:
        raise UsageError(
            f"--prompt is given {len(flags)} times", "put the texts together, or use --prompt-file"
        )
    flag = flags[0] if flags else None
    if flag == file == STREAM:
        raise UsageError("--prompt - and --prompt-file - both read standard input", "leave one of them out")
    # Parts by source, in order.
    parts: dict[str, str] = {}
    if file not in (None, STREAM):
        parts[f"--prompt-file {file}"] = _read_file(str(file), most_bytes)
    if flag not in (None, STREAM):
        parts["--prompt"] = str(flag)
    if STREAM in (flag, file):
        if sys.stdin is None:
            option = "--prompt" if flag == STREAM else "--prompt-file"
            raise UsageError(f"{option} - reads standard input, which is closed")
        if is_terminal(sys.stdin):
            console.note("reading the prompt from the terminal; Ctrl-D on a line of its own ends it")
        parts = {STDIN: _read_stdin(most_bytes), **parts}
    elif _is_piped():
        if parts and not select.select([sys.stdin], [], [], SILENCE_S)[0]:
            console.note("waiting for standard input to end; add </dev/null to leave it out")
        piped = _read_stdin(most_bytes)
        if parts and piped:
            # In a `while read` loop, these are the lines that the loop should read.
            count = piped.count("\n") + 1
            lines = (
                "1 line of standard input comes" if count == 1 else f"{count} lines of standard input come"
            )
            console.note(f"{lines} before the prompt; </dev/null leaves it out")
        parts = {STDIN: piped, **parts}
    if not parts:
        return None
    prompt = "\n".join(part for part in parts.values() if part)
    if not prompt:
        places = " or ".join(place for place in parts if place != "--prompt")
        nothing = f": nothing in {places}" if places else ""
        raise UsageError(f"the prompt is empty{nothing}", 'give a text, as in metal-gen generate "..."')
    return prompt


def _is_piped() -> bool:
    """Return whether standard input is a pipe or a file, and not a terminal, a device or closed."""
    if sys.stdin is None:
        return False
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def _read_stdin(most_bytes: Callable[[], int]) -> str:
    what = f"the prompt on {STDIN}"
    data = _read(sys.stdin.buffer, what, most_bytes)
    return decode_text(data, what, drops_line_end=True, pipe=Pipe(None, READER))


def _read_file(name: str, most_bytes: Callable[[], int]) -> str:
    what = f"--prompt-file {name}"
    try:
        stream = Path(name).open("rb")  # noqa: SIM115
    except OSError as error:
        raise _unreadable(what, error, how_to_read(error, Path(name))) from None
    with stream:
        data = _read(stream, what, most_bytes)
    return decode_text(data, what, drops_line_end=True, pipe=Pipe(name, READER))


def _read(stream: BinaryIO, what: str, most_bytes: Callable[[], int]) -> bytes:
    """Read to the end, up to the maximum size."""
    data = bytearray(_part(stream, what))
    if len(data) < PART_BYTES:
        return bytes(data)
    most = most_bytes()
    while len(data) <= most and (part := _part(stream, what)):
        data += part
    if len(data) > most:
        raise DoesNotFitError(
            f"{what} does not fit: it has more than {most:,} bytes, and no prompt of so many bytes can fit",
            "shorten it; metal-gen plan says how many tokens fit",
        )
    return bytes(data)


def _part(stream: BinaryIO, what: str) -> bytes:
    """Return the next bytes; fewer than requested only at the end of the stream."""
    try:
        return stream.read(PART_BYTES)
    except OSError as error:
        hint = "name a file in it" if isinstance(error, IsADirectoryError) else ""
        raise _unreadable(what, error, hint) from None


def _unreadable(what: str, error: OSError, hint: str) -> UsageError:
    return UsageError(f"{what} cannot be read: {error.strerror}", hint)
