"""Keeps two runs from writing one output."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from metal_gen.errors import OutputHeldError, UsageError

LONGEST_HOLDER_BYTES = 400


class OutputLock:
    """A lock on an output, which the system gives up with the process that has it, however it ends.

    The lock is on a file beside the output, which says who has it.

    Args:
        path: Of the output.

    Raises:
        OutputHeldError: Another run has it.
        OSError: The file cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.parent / f".{path.name}.lock"
        while True:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self._is_current(descriptor):
                    holder = f"process {os.getpid()} on {socket.gethostname()}".encode()
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, holder[:LONGEST_HOLDER_BYTES], 0)
                    break
            except BlockingIOError:
                holder = os.pread(descriptor, LONGEST_HOLDER_BYTES, 0)
                os.close(descriptor)
                raise _held(path, holder) from None
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)
        self._descriptor = descriptor

    def _is_current(self, descriptor: int) -> bool:
        """Whether the file still has its name: a run that ends takes it away."""
        with suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(descriptor), self.path.stat())
        return False

    def release(self) -> None:
        """Let another run have the output."""
        with suppress(OSError):
            if self._is_current(self._descriptor):
                self.path.unlink()
        os.close(self._descriptor)


def _held(path: Path, holder: bytes) -> OutputHeldError:
    who = holder.decode(errors="replace") or "one that has just begun"
    return OutputHeldError(
        f"the output {path} is being written by another run: {who}",
        "wait for it to end, or name another output",
    )


def hold_output(given: Path) -> tuple[Path, OutputLock]:
    """Lock an output.

    Returns:
        Its path, of a link where that points to, and the lock.

    Raises:
        UsageError: It is no file, or nothing can be written beside it.
        OutputHeldError: Another run has it.
    """
    try:
        path = given.resolve() if given.is_symlink() else given
        if path.exists() and not path.is_file():
            what = "a folder" if path.is_dir() else "not a file: give -o - and redirect it"
            raise UsageError(f"the output {given} is {what}")
        return path, OutputLock(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"the output {given} cannot be written: {reason}") from None


@contextmanager
def released_on_error(path: Path, lock: OutputLock) -> Iterator[None]:
    """Give a lock up where a block fails.

    Raises:
        UsageError: In place of an OSError.
    """
    try:
        yield
    except OSError as error:
        lock.release()
        raise UsageError(f"the output {path} cannot be written: {error.strerror}") from error
    except BaseException:
        lock.release()
        raise
