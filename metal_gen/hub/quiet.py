"""Keeps huggingface_hub from writing to stderr."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def library_kept_quiet() -> Iterator[None]:
    """Hold back its warnings (no token, a retry); what matters of them comes back as an exception.

    A level that somebody has lowered to see more is left alone.
    """
    library = logging.getLogger("huggingface_hub")
    level = library.level
    if level in (logging.NOTSET, logging.WARNING):
        library.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # Of a full disk, which is looked at before.
            warnings.filterwarnings("ignore", module="huggingface_hub")
            yield
    finally:
        library.setLevel(level)
