"""Runs a command, and writes how long it took and the most memory it had as one line of JSON.

Executed as a file of its own by a bare interpreter: what the operating system reports as a process's
peak memory begins with that of the process it was started from.
"""

import json
import os
import subprocess
import sys
import time


def main(command: list[str]) -> None:
    """Run it with its output thrown away."""
    begin = time.perf_counter()
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    stderr = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    json.dump(
        {
            "exit_code": process.returncode,
            "stderr": stderr.decode(errors="replace"),
            "wall_s": wall_s,
            "cpu_s": usage.ru_utime + usage.ru_stime,
            # Linux counts in KiB.
            "peak_rss_bytes": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
