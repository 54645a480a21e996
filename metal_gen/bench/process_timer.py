"""Runs a command and prints its duration and peak memory as one line of JSON.

Executed as a script by a bare interpreter: the peak memory that the operating system reports for a process
starts at that of its parent.
"""

import json
import os
import subprocess
import sys
import time


def main(command: list[str]) -> None:
    """Run the command and discard its output."""
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
            # Linux reports KiB, macOS bytes.
            "peak_rss_bytes": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
