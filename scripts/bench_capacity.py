#!/usr/bin/env python3
"""Does a large cache slow decoding down? Times single steps at the same position, cache against cache.

    python scripts/bench_capacity.py                       # the bundled model
    python scripts/bench_capacity.py --model CHECKPOINT --capacities 512 32768 --position 256

Prints the median time of a step for each capacity, taken in turns, the ratio to the first, and
by how much peak memory rose while decoding.
"""

import argparse
import statistics
import time

import mlx.core as mx

import metal_gen
from metal_gen.engine.decoder import Decoder


def time_steps(decoder: Decoder, position: int, steps: int) -> list[float]:
    """Return the seconds of single greedy steps after a prompt of `position` tokens."""
    decoder.cache.clear()
    token = mx.argmax(decoder.prefill([1] * position), axis=-1)
    mx.eval(token)
    times = []
    for _ in range(steps):
        # As the generator does: start the next step, then read the token before it.
        begin = time.perf_counter()
        following = mx.argmax(decoder.step(token), axis=-1)
        mx.async_eval(following)
        token.tolist()
        times.append(time.perf_counter() - begin)
        token = following
    return times


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="folder or Hub id; by default the bundled model")
    parser.add_argument("--capacities", type=int, nargs="+", default=[512, 32768])
    parser.add_argument("--position", type=int, default=256)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()

    decoders = {
        size: metal_gen.load(arguments.model, max_seq_len=size).decoder for size in arguments.capacities
    }
    for decoder in decoders.values():
        time_steps(decoder, arguments.position, 10)
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    times: dict[int, list[float]] = {size: [] for size in decoders}
    for _ in range(arguments.rounds):
        for size, decoder in decoders.items():
            times[size] += time_steps(decoder, arguments.position, arguments.steps)

    first = statistics.median(times[arguments.capacities[0]])
    for size, decoder in decoders.items():
        median = statistics.median(times[size])
        cache = f"capacity {size:>7}: cache {decoder.cache.nbytes / 2**20:8.1f} MiB"
        print(f"{cache}, step {median * 1e3:7.3f} ms, ratio {median / first:.3f}")
    print(f"peak memory rose by {(mx.get_peak_memory() - before) / 2**20:.1f} MiB, prefill included")


if __name__ == "__main__":
    main()
