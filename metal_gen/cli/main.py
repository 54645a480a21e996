"""The process: from arguments to an exit code, including signals and closed streams."""

import errno
import os
import sys
import traceback
from contextlib import suppress
from typing import Any, NoReturn

from metal_gen.cli.signals import SignalWatch, StoppedError, stopped_by
from metal_gen.cli.terminal.console import Console
from metal_gen.cli.terminal.streams import shows_animation
from metal_gen.control_characters import visible
from metal_gen.errors import ExitCode, MetalGenError, UsageError

COMPLETION_VARIABLE = "_METAL_GEN_COMPLETE"


def run() -> NoReturn:
    """Run the program and exit; the entry point `metal-gen`."""
    _fill_closed_descriptors()
    watch = SignalWatch()
    watch.start()
    kept: list[object] = []
    try:
        code = main(sys.argv[1:], kept, watch)
    except (Exception, StoppedError) as error:
        if stopped := stopped_by(error) or watch.stopped:
            code = _say_stopped(stopped)
        else:
            # If Python printed it, it would crash at exit while weights are still being read.
            with suppress(OSError, AttributeError):
                sys.stderr.write(visible(traceback.format_exc()))
            code = ExitCode.UNEXPECTED
    if code == ExitCode.CLOSED_PIPE or not _flush():
        # Python flushes stdout again at exit, and would report the error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = code or ExitCode.CLOSED_PIPE
    _leave(code)


def main(arguments: list[str], kept: list[object] | None = None, watch: SignalWatch | None = None) -> int:
    """Run one command.

    Args:
        arguments: Arguments after the program's name.
        kept: Receives the command's context, so that its contents outlive the command.
        watch: Knows of a signal in whose place an error came.

    Returns:
        The exit code; see `ExitCode`. Only unexpected errors are raised.
    """
    console = Console()
    try:
        texts = [_utf8(*pair) for pair in zip(["", *arguments], arguments, strict=False)]
        code = _run_command(texts, [] if kept is None else kept)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except MetalGenError as error:
        if watch is not None and watch.stopped is not None:
            return _say_stopped(watch.stopped)
        console.error(error.message, error.hint)
        return error.exit_code
    except StoppedError as stopped:
        return _say_stopped(stopped)
    except KeyboardInterrupt:
        console.error("interrupted")
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        return ExitCode.CLOSED_PIPE
    except SystemExit as left:
        # Rich exits like this when a pipe is closed, and typer when it is done.
        if isinstance(left.__context__, BrokenPipeError):
            return ExitCode.CLOSED_PIPE
        raise
    except RuntimeError as error:
        if (memory := _out_of_memory(error)) is None:
            raise
        console.error(memory.message, memory.hint)
        return memory.exit_code
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        console.error(f"the output cannot be written: {error.strerror}")
        return ExitCode.UNEXPECTED


def _out_of_memory(error: RuntimeError) -> MetalGenError | None:
    from metal_gen.device.out_of_memory import out_of_memory

    return out_of_memory(error)


def _say_stopped(stopped: StoppedError) -> ExitCode:
    console = Console.on_screen or Console()
    console.end_text()
    if shows_animation(sys.stderr):
        sys.stderr.write("\r")  # over the `^C` that the terminal shows
    console.error(stopped.word)
    return stopped.exit_code


def _run_command(arguments: list[str], kept: list[object]) -> int:
    import typer

    from metal_gen.cli.app import app
    from metal_gen.cli.switch_values import ARGUMENTS
    from metal_gen.cli.usage_errors import refuse_shell_name, usage_error

    if COMPLETION_VARIABLE in os.environ:
        _repair_words_of_bash()
        # A shell reads a completion from each line: help must not be wrapped.
        os.environ["COLUMNS"] = "10000"
        app(prog_name="metal-gen")
    refuse_shell_name(arguments)
    # Typer's own entry point would turn a closed pipe and Ctrl-C into exit code 1.
    command = typer.main.get_command(app)
    try:
        # The parser takes the words out of the list that it reads.
        context = _read_arguments(command, list(arguments))
        kept.append(context)
        context.meta[ARGUMENTS] = arguments
        with context:
            command.invoke(context)
    except typer.Exit as exit:
        return exit.exit_code
    except typer.TyperException as error:
        if error.format_message():
            raise usage_error(error, command, arguments) from None
        return error.exit_code
    return ExitCode.DONE


def _repair_words_of_bash() -> None:
    """Repair the words that bash passes; other shells pass the command line unchanged."""
    from metal_gen.cli.completion import without_equals_signs

    if os.environ[COMPLETION_VARIABLE] == "complete_bash":
        words = os.environ.get("COMP_WORDS", "").split("\n")
        words, place = without_equals_signs(words, int(os.environ.get("COMP_CWORD", "0")))
        os.environ.update(COMP_WORDS="\n".join(words), COMP_CWORD=str(place))


def _read_arguments(command: Any, arguments: list[str]) -> Any:
    """Find the command; run options that need none: --help, --version, --install-completion."""
    try:
        return command.make_context("metal-gen", arguments)
    except OSError as error:
        if error.filename is None:
            raise
        raise MetalGenError(
            f"completion cannot be installed: {error.filename}: {error.strerror}",
            "metal-gen --show-completion prints it",
        ) from None


def _utf8(before: str, argument: str) -> str:
    """Decode an argument's bytes as UTF-8, whatever the locale."""
    data = os.fsencode(argument)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        what = before if before.startswith("-") else "an argument"
        raise UsageError(f"{what} is not UTF-8: byte {error.start} is 0x{data[error.start]:02x}") from None


def _fill_closed_descriptors() -> None:
    """Open /dev/null if stdin, stdout or stderr is closed, so that no other file gets its descriptor."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _leave(code: int) -> NoReturn:
    """End the process at once; everything that matters has been closed.

    Python would first free the weights and every token of the vocabulary one by one, and wait for reads in
    progress.
    """
    with suppress(OSError, AttributeError):
        sys.stderr.flush()
    os._exit(code)


def _flush() -> bool:
    if sys.stdout is not None:
        with suppress(OSError):
            sys.stdout.flush()
            return True
    return sys.stdout is None
