"""Tests models that several threads load at once."""

import subprocess
import sys

import pytest
from cli_process import ON_DEVICE, TIMEOUT_S, clean_environment

# Threads that wait for each other in MLX hold Python's lock, so only another process can end them.
PROGRAM = f"""
{ON_DEVICE}
import metal_gen
from threading import Barrier, Thread

together, texts = Barrier(3), []

def load_and_generate():
    together.wait()
    for _ in range(2):
        model = metal_gen.load(max_seq_len=64)
    texts.append(metal_gen.generate(model, "A fox", max_tokens=3, seed=1).text)

threads = [Thread(target=load_and_generate) for _ in range(together.parties)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(texts), len(set(texts)))
"""


@pytest.mark.metal
def test_threads_that_load_at_once_do_not_wait_for_each_other(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=clean_environment(tmp_path),
        cwd=tmp_path,
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert (done.stdout.split(), done.stderr) == ([b"3", b"1"], b"")
