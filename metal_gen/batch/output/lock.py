"""Prevents two runs from writing the same output."""

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from metal_gen.batch.output.run_file import last_writer
from metal_gen.errors import MetalGenError, OutputHeldError, UsageError
from metal_gen.files.parts import has_name
from metal_gen.files.paths import FULL, resolve, why_not_written

NEW_MODE = 0o666


class HeldOutput:
    """An output opened for reading and appending, locked by this process.

    The lock is on the output file itself, and the system releases it with the process, however that ends.
    There is no lock file that could be left behind or deleted.

    Args:
        path: Path of the output; created if it does not exist.

    Attributes:
        path: Path of the output.
        descriptor: Descriptor of the open file.
        is_new: Whether the file was created.

    Raises:
        OutputHeldError: Another run holds the lock.
        OSError: The file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor, self.is_new = _open_locked(path)

    @property
    def nbytes(self) -> int:
        """Size of the file in bytes."""
        return os.fstat(self.descriptor).st_size

    def follow(self) -> None:
        """Lock the file that has replaced the output.

        Raises:
            OutputHeldError: Another run locked it first.
            OSError: The file cannot be opened.
        """
        descriptor, _ = _open_locked(self.path)
        os.close(self.descriptor)
        self.descriptor = descriptor

    def empty(self) -> None:
        """Discard the contents.

        Raises:
            OSError: The file cannot be truncated.
        """
        os.ftruncate(self.descriptor, 0)

    def release(self) -> None:
        """Release the lock."""
        os.close(self.descriptor)

    def remove_if_unused(self) -> bool:
        """Delete the output if this process created it and it is still empty; return whether it did."""
        with suppress(OSError):
            if self.is_new and not self.nbytes and has_name(self.descriptor, self.path):
                self.path.unlink()
                return True
        return False


def _open_locked(path: Path) -> tuple[int, bool]:
    """Open and lock a file; return the descriptor and whether the file is new."""
    while True:
        descriptor, is_new = _open(path)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, "it is not a file")
            _lock(descriptor)
            # Another run may have created the file and deleted it again.
            if has_name(descriptor, path):
                return descriptor, is_new
        except BlockingIOError:
            os.close(descriptor)
            raise OutputHeldError(
                f"the output {path} is being written by another run: {last_writer(path)}",
                "wait for it to end, or name another output",
            ) from None
        except BaseException:
            if is_new:
                with suppress(OSError):
                    path.unlink()
            os.close(descriptor)
            raise
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        raise OSError(error.errno, f"its file system has no locks: {error.strerror}") from error


def _open(path: Path) -> tuple[int, bool]:
    flags = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
    while True:
        with suppress(FileExistsError):
            return os.open(path, flags | os.O_CREAT | os.O_EXCL, NEW_MODE), True
        with suppress(FileNotFoundError):
            return os.open(path, flags), False


def hold_output(given: Path) -> HeldOutput:
    """Open and lock an output, following a link.

    Raises:
        UsageError: The path is not a file, or it cannot be written.
        OutputHeldError: Another run holds the lock.
        MetalGenError: The disk is full.
    """
    try:
        path = resolve(given) if given.is_symlink() else given
        if path.exists() and not path.is_file():
            if path.is_dir():
                raise UsageError(f"the output {given} is a folder", "name a file in it")
            raise UsageError(f"the output {given} is not a file", "give -o - and redirect it")
        return HeldOutput(path)
    except OSError as error:
        raise cannot_be_written(given, error) from None
    except ValueError as error:
        raise UsageError(f"the output {given} cannot be written: {error}") from None


@contextmanager
def released_on_error(held: HeldOutput) -> Iterator[None]:
    """Release an output if the block fails, and delete it if it was created for nothing.

    Raises:
        MetalGenError: Instead of an OSError; see `cannot_be_written`.
    """
    try:
        yield
    except BaseException as error:
        held.remove_if_unused()
        held.release()
        if isinstance(error, OSError):
            raise cannot_be_written(held.path, error) from error
        raise


def cannot_be_written(path: Path, error: OSError) -> MetalGenError:
    """Return the error of an output that cannot be started; a full disk is not a usage error."""
    reason, hint = why_not_written(error, path)
    kind = MetalGenError if error.errno in FULL else UsageError
    return kind(f"the output {path} cannot be written: {reason}", hint)
