"""The process: from arguments to an exit code, with signals and closed pipes in between."""

import os
import signal
import sys
from types import FrameType
from typing import NoReturn

from metal_gen.cli.console import Console
from metal_gen.errors import ExitCode, MetalGenError


class _TerminatedError(BaseException):
    """SIGTERM came."""


def run() -> NoReturn:
    """Run the program and exit; the entry point `metal-gen`."""
    code = main(sys.argv[1:])
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        code = ExitCode.CLOSED_PIPE
    if code == ExitCode.CLOSED_PIPE:
        # Python flushes stdout once more on its way out and would complain about it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def main(arguments: list[str]) -> int:
    """Run one command.

    Returns:
        The exit code; see `ExitCode`. Only errors of the program itself come through.
    """
    import typer

    from metal_gen.cli.app import app

    console = Console()
    signal.signal(signal.SIGTERM, _on_sigterm)
    try:
        code = app(arguments, prog_name="metal-gen", standalone_mode=False)
        return int(code or ExitCode.DONE)
    except MetalGenError as error:
        console.error(error.message, error.hint)
        return error.exit_code
    except typer.TyperException as error:
        # Called without a command, typer has printed the help and has nothing to add.
        if message := error.format_message():
            console.error(message, "metal-gen --help, or metal-gen COMMAND --help")
        return error.exit_code
    except BrokenPipeError:
        return ExitCode.CLOSED_PIPE
    except (KeyboardInterrupt, typer.Abort):
        console.error("interrupted")
        return ExitCode.INTERRUPTED
    except _TerminatedError:
        console.error("terminated")
        return ExitCode.TERMINATED


def _on_sigterm(signum: int, frame: FrameType | None) -> NoReturn:
    raise _TerminatedError
