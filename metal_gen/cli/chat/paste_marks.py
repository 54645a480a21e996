"""Bracketed paste: the terminal marks pasted text, so that several lines stay one message."""

import sys

# Control sequences of xterm, supported by other terminals too.
ON, OFF = "\x1b[?2004h", "\x1b[?2004l"


def mark_pastes(*, on: bool) -> None:
    """Turn the marks on or off, if standard error is a terminal."""
    if sys.stderr is not None and sys.stderr.isatty():
        sys.stderr.write(ON if on else OFF)
        sys.stderr.flush()
