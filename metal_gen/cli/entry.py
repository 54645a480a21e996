"""The entry point `metal-gen`: Ctrl-C ends it without a traceback, even while the program is imported."""

import signal


def run() -> None:
    """Run the program and exit."""
    # `SignalWatch` handles Ctrl-C later. A signal that is ignored stays ignored.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    from metal_gen.cli.main import run as run_program

    run_program()
