"""Runs work with the Hub that can be stopped, and that ends if the Hub hardly sends anything."""

import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from metal_gen.background import Background
from metal_gen.errors import ModelNotFoundError

# Less than any connection used to download models; the window is longer than the Hub's waiting times.
FEWEST_BYTES = 256 << 10
WINDOW_S = 360.0
LOOK_S = 0.5
_FAREWELL_S = 3.0
Result = TypeVar("Result")


def run_watched(
    work: Callable[[], Result],
    received_bytes: Callable[[], int],
    stop: Callable[[], None],
    *,
    most_bytes: int | None = None,
) -> Result:
    """Return the result of the work; stop it if the caller is interrupted or too little arrives.

    The library lets its threads finish their files before Ctrl-C takes effect. Work in our own thread can be
    stopped sooner.

    Args:
        work: Runs in its own thread.
        received_bytes: Returns the number of bytes received so far.
        stop: Makes the work fail soon.
        most_bytes: Limit of the bytes received; None for no limit.

    Raises:
        ModelNotFoundError: Fewer than FEWEST_BYTES arrive within WINDOW_S, or more than `most_bytes` in all.
        BaseException: Any exception of the work.
    """
    task = Background(work)
    begin_s, begin_bytes = time.monotonic(), received_bytes()
    try:
        while not task.wait(LOOK_S):
            now_bytes = received_bytes()
            if most_bytes is not None and now_bytes > most_bytes:
                raise ModelNotFoundError(
                    f"the Hub does not stop sending: {now_bytes:,} bytes",
                    "check HF_ENDPOINT and the proxy settings",
                )
            if time.monotonic() - begin_s < WINDOW_S:
                continue
            if now_bytes - begin_bytes < FEWEST_BYTES:
                raise ModelNotFoundError(
                    f"the Hub sends too slowly: {now_bytes - begin_bytes:,} bytes in {WINDOW_S:.0f} s",
                    "check the connection, the proxy and HF_ENDPOINT, and run the same command again",
                )
            begin_s, begin_bytes = time.monotonic(), now_bytes
        return task.result()
    except BaseException:
        if not task.wait(0):
            stop()
            # Long enough to delete partial files. A thread that does not react ends with the process.
            task.wait(_FAREWELL_S)
        raise


def for_each(names: list[str], work: Callable[[str], None], most_threads: int) -> None:
    """Do the work for every name, several at a time; after a failure, start nothing new.

    Raises:
        Exception: The first failure, once the work in progress has ended.
    """
    waiting = deque(names)
    failures: list[Exception] = []

    def work_on() -> None:
        while waiting and not failures:
            try:
                name = waiting.popleft()
            except IndexError:  # another thread took the last name
                return
            try:
                work(name)
            except Exception as error:
                failures.append(error)

    workers = [Background(work_on) for _ in range(min(most_threads, len(names)))]
    for worker in workers:
        worker.result()
    if failures:
        raise failures[0]
