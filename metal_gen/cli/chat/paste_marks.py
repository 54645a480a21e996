"""Has the terminal mark what is pasted, so that several lines stay one message (bracketed paste)."""

import sys

# Control sequences of xterm, which other terminals follow.
ON, OFF = "\x1b[?2004h", "\x1b[?2004l"


def mark_pastes(*, on: bool) -> None:
    """Switch the marks on or off, where standard error is a terminal."""
    if sys.stderr is not None and sys.stderr.isatty():
        sys.stderr.write(ON if on else OFF)
        sys.stderr.flush()
