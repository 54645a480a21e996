"""Where the prompt comes from: `--prompt`, standard input, or both."""

import os
import select
import stat
import sys

from metal_gen.cli.console import Console
from metal_gen.errors import UsageError

STDIN = "-"
SILENCE_S = 2.0


def read_prompt(flag: str | None, console: Console) -> str | None:
    """Put the prompt together: what is piped in, then a newline, then `--prompt`.

    One newline at the end of piped text is taken off: the one that ends its last line.

    Args:
        flag: The value of `--prompt`; `-` is standard input alone.
        console: Says what is being waited for.

    Returns:
        None where there is neither: no `--prompt`, and standard input is a terminal, /dev/null
        or closed.

    Raises:
        UsageError: The prompt is empty, or is not UTF-8.
    """
    if flag == STDIN:
        if sys.stdin is None:
            raise UsageError("--prompt - reads standard input, which is closed")
        prompt = _read_stdin()
    else:
        piped = _read_stdin(console, has_prompt=flag is not None) if _is_piped() else None
        if flag is None and piped is None:
            return None
        prompt = "\n".join(part for part in (piped, flag) if part)
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
    data = sys.stdin.buffer.read()
    try:
        return data.decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"the prompt on standard input is not UTF-8: byte {error.start} is 0x{data[error.start]:02x}",
            "convert it, for example with iconv -t utf-8",
        ) from None
