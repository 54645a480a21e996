"""Compares decoding at the same position in caches of different capacity, in alternating runs.

    python scripts/bench_capacity.py [--model FOLDER] [--position 1000] [--capacities 2048,32768] [--runs 7]

Prints the medians over the runs of milliseconds a token, and how each compares with the first capacity. A
step reads what its position decides, so the ratios should be near 1.
"""

import argparse
import statistics
from dataclasses import replace

from metal_gen.device.backend import require_mlx

TOKENS = 32


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model")
    parser.add_argument("--position", type=int, default=1000)
    parser.add_argument("--capacities", default="2048,32768")
    parser.add_argument("--cache-dtype", default="auto")
    parser.add_argument("--runs", type=int, default=7)
    arguments = parser.parse_args()
    capacities = [int(each) for each in arguments.capacities.split(",")]
    if min(capacities) <= arguments.position + TOKENS:
        parser.error(f"a capacity has to be above the position and {TOKENS} more tokens")

    require_mlx()
    import metal_gen
    from metal_gen.bench.runners.engine import EngineRunner

    model = metal_gen.load(arguments.model, max_seq_len=min(capacities), cache_dtype=arguments.cache_dtype)
    sizes = [replace(model.plan.cache, max_seq_len=capacity) for capacity in capacities]
    runners = [EngineRunner.with_capacity(model, size) for size in sizes]
    for runner in runners:
        runner.decode(arguments.position, TOKENS)
    times: dict[int, list[float]] = {capacity: [] for capacity in capacities}
    for _ in range(arguments.runs):
        for runner in runners:
            taken = runner.decode(arguments.position, TOKENS)
            times[runner.capacity].append(1000 / taken.decode_tps)
    first = statistics.median(times[capacities[0]])
    for capacity, values in times.items():
        middle = statistics.median(values)
        print(f"capacity {capacity:>7,}: {middle:.3f} ms a token, {middle / first:.3f} times")


if __name__ == "__main__":
    main()
