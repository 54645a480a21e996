#!/usr/bin/env python3
"""Measures `metal-gen score --jsonl` beside a loop of single calls and beside prefill, in turns.

    python scripts/bench_scores.py --model MODEL --rows 1000 --tokens 200

Rows are scored by the slots of a run, by `metal_gen.score` one after another, and computed as prompts that
fill the cache, all in this process. `--processes` measures some rows as runs of `metal-gen score` too, which
is what a loop in a shell does. Prints ratios of wall times, medians over blocks of rows.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from metal_gen.device.backend import require_mlx

require_mlx()  # With the BLAS that the command line uses, before anything imports MLX.

import mlx.core as mx  # noqa: E402

import metal_gen  # noqa: E402
from metal_gen.batch.scoring.executor import open_scorer, score_all  # noqa: E402
from metal_gen.config.settings import Settings  # noqa: E402
from metal_gen.engine.scoring.scorer import ScoreRequest  # noqa: E402
from metal_gen.generation.loading import TextModel, prepare  # noqa: E402

BLOCKS = 5
WORDS = "a fox and an owl went in to the old wood while rain fell on stone path lantern river small".split()


def texts_of(model: TextModel, rows: int, tokens: int) -> Iterator[str]:
    """Yield texts of random words with as many tokens, or one more."""
    chance, tokenizer = random.Random(0), model.checkpoint.tokenizer
    for _ in range(rows):
        words = [chance.choice(WORDS) for _ in range(tokens)]
        while len(tokenizer.encode(" ".join(words), add_special_tokens=False)) > tokens + 1:
            words.pop()
        yield " ".join(words)


def seconds(run: Callable[[], object]) -> float:
    """Return how long a function takes."""
    begin_s = time.perf_counter()
    run()
    return time.perf_counter() - begin_s


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model")
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--processes", type=int, default=0, help="rows to score in processes of their own")
    options = parser.parse_args()
    settings = Settings(model=options.model, model_dtype=options.dtype)
    single = prepare(settings, scores=True).load()
    several = prepare(settings, scores=True, most_slots=options.slots).load()
    tokenizer = single.checkpoint.tokenizer
    texts = list(texts_of(single, options.rows, options.tokens))
    ids = [tokenizer.encode(text, add_special_tokens=False) for text in texts]

    def prefill(rows: list[list[int]]) -> None:
        flat, capacity = [token for row in rows for token in row], single.plan.cache.max_seq_len
        for begin in range(0, len(flat), capacity):
            single.decoder.cache.clear()
            mx.eval(single.decoder.prefill(flat[begin : begin + capacity]))

    times: dict[str, list[float]] = {"rows": [], "calls": [], "prefill": []}
    with open_scorer(several) as scorer:

        def rows(block: list[list[int]]) -> None:
            requests = (ScoreRequest([], row[:-1], row[1:]) for row in block)
            assert sum(1 for _ in score_all(scorer, requests)) == len(block)

        size = max(1, options.rows // BLOCKS)
        rows(ids[:2])
        prefill(ids[:2])
        metal_gen.score(single, texts[0])
        for begin in range(0, options.rows, size):
            block, own = texts[begin : begin + size], ids[begin : begin + size]
            times["rows"].append(seconds(lambda own=own: rows(own)))  # type: ignore[misc]
            times["calls"].append(
                seconds(lambda block=block: [metal_gen.score(single, text) for text in block])  # type: ignore[misc]
            )
            times["prefill"].append(seconds(lambda own=own: prefill(own)))  # type: ignore[misc]
    a_row_s = statistics.median(times["rows"]) / size
    print(f"{options.rows} rows of {len(ids[0])} tokens, {several.plan.cache.batch_size} slots")
    print(f"a row: {1000 * a_row_s:.1f} ms, {len(ids[0]) / a_row_s:.0f} tokens a second")
    for name in ("calls", "prefill"):
        ratios = [other / one for one, other in zip(times["rows"], times[name], strict=True)]
        print(f"{name}: {statistics.median(ratios):.2f} times as long")
    if options.processes:
        a_process_s = process_s(options.model, texts[: options.processes])
        print(f"processes: {a_process_s / a_row_s:.1f} times as long")


def process_s(model: str | None, texts: list[str]) -> float:
    """Return the median seconds of `metal-gen score` for one text."""
    with TemporaryDirectory() as folder:
        file, times = Path(folder) / "text.txt", []
        for text in texts:
            file.write_text(text)
            command = [sys.executable, "-m", "metal_gen", "score", str(file), "-q"]
            command += ["-m", model] if model else []
            begin_s = time.perf_counter()
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
            times.append(time.perf_counter() - begin_s)
            assert json.loads(done.stdout)["tokens"]
    return statistics.median(times)


if __name__ == "__main__":
    main()
