"""Where the prompt comes from: standard input, `--prompt-file`, `--prompt`, or several of them."""

import os
import select
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

from metal_gen.cli.output.output_file import STREAM
from metal_gen.cli.terminal.console import Console
from metal_gen.cli.terminal.streams import is_terminal
from metal_gen.errors import UsageError

SILENCE_S = 2.0


def read_prompt(flags: Sequence[str], file: str | None, console: Console) -> str | None:
    """Put the prompt together: what is piped in, then the file, then `--prompt`, a newline between them.

    One newline at the end of a file or of piped text is taken off: the one that ends its last line.

    Args:
        flags: The values of `--prompt`, at most one; `-` is standard input.
        file: The value of `--prompt-file`; `-` is standard input.
        console: Says what is being waited for.

    Returns:
        None where there is neither: no option, and standard input is a terminal, /dev/null or closed.

    Raises:
        UsageError: The prompt is empty, is not UTF-8, or cannot be read; an option is given twice.
    """
    if len(flags) > 1:
        raise UsageError(
            f"--prompt is given {len(flags)} times", "put the texts together, or use --prompt-file"
        )
    flag = flags[0] if flags else None
    if flag == file == STREAM:
        raise UsageError("--prompt - and --prompt-file - are the same", "leave one of them out")
    parts = [] if file in (None, STREAM) else [_read_file(str(file))]
    parts += [] if flag in (None, STREAM) else [str(flag)]
    if STREAM in (flag, file):
        if sys.stdin is None:
            option = "--prompt" if flag == STREAM else "--prompt-file"
            raise UsageError(f"{option} - reads standard input, which is closed")
        if is_terminal(sys.stdin):
            console.note("reading the prompt from the terminal; Ctrl-D on a line of its own ends it")
        parts.insert(0, _read_stdin())
    elif _is_piped():
        parts.insert(0, _read_stdin(console, has_prompt=bool(parts)))
    if not parts:
        return None
    prompt = "\n".join(part for part in parts if part)
    if not prompt:
        raise UsageError("the prompt is empty", "give it with --prompt TEXT, or pipe it in")
    return prompt


def _is_piped() -> bool:
    """Whether standard input is a pipe or a file; a terminal, a device and a closed one are not."""
    if sys.stdin is None:
        return False
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def _read_stdin(console: Console | None = None, *, has_prompt: bool = False) -> str:
    if console is not None and has_prompt and not select.select([sys.stdin], [], [], SILENCE_S)[0]:
        console.note("waiting for standard input to end; run with </dev/null to do without it")
    return _decode(sys.stdin.buffer.read(), "the prompt on standard input")


def _read_file(name: str) -> str:
    try:
        data = Path(name).read_bytes()
    except OSError as error:
        raise UsageError(
            f"--prompt-file {name} cannot be read: {error.strerror}",
            "name a file that can be, or give the text itself with --prompt",
        ) from None
    return _decode(data, f"--prompt-file {name}")


def _decode(data: bytes, what: str) -> str:
    try:
        return data.decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{what} is not UTF-8: byte {error.start} is 0x{data[error.start]:02x}",
            "convert it, for example with iconv -t utf-8",
        ) from None
