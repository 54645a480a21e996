"""Keeps huggingface_hub from writing to stderr."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def library_kept_quiet() -> Iterator[None]:
    """Suppress the library's warnings (no token, a retry); real failures come as exceptions.

    A log level that the user has set is left alone.
    """
    library = logging.getLogger("huggingface_hub")
    level = library.level
    if level in (logging.NOTSET, logging.WARNING):
        library.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # It warns of a full disk, which `download` checks before.
            warnings.filterwarnings("ignore", module="huggingface_hub")
            yield
    finally:
        library.setLevel(level)
