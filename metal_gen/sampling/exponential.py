"""An exponential function for weights over the whole vocabulary."""

import mlx.core as mx

from metal_gen.device.backend import runs_on_cpu

# ln 2 in two parts. The first is short enough for exact products with small whole numbers.
LN2_HIGH, LN2_LOW = 0.693359375, -2.12194440e-4
LOG2_E = 1.4426950408889634
SMALLEST, SMALLEST_EXPONENT = -87.0, -126.0
# For fewer numbers, the fixed cost of each operation outweighs the gain.
WORTHWHILE = 16_384
FLOAT32_BIAS, FLOAT32_MANTISSA_BITS = 127, 23


def exp(x: mx.array) -> mx.array:
    """Return e^x for float32 x of at most 0. Below e^-87, which float32 can barely hold, return 0.

    On MLX's CPU backend, `mx.exp` works on one number at a time: 2.9 ms for 151,936 of them. The same from
    whole-array operations takes 0.8 ms, with an error of at most 3e-7, compared with 3e-6 for `mx.exp`
    (`scripts/bench_sampling.py`, `tests/sampling/test_sampler.py`). Elsewhere this is `mx.exp`.

    e^x = 2^n e^r with a whole n and |r| <= ln(2) / 2 (Cody and Waite, Software Manual for the
    Elementary Functions, 1980).
    """
    if x.size < WORTHWHILE or not runs_on_cpu():
        return mx.exp(x)
    whole = mx.maximum(mx.round(x * LOG2_E), SMALLEST_EXPONENT)
    rest = mx.maximum((x - whole * LN2_HIGH) - whole * LN2_LOW, -1.0)
    series = mx.array(1 / 720)
    for coefficient in (1 / 120, 1 / 24, 1 / 6, 1 / 2, 1.0, 1.0):
        series = series * rest + coefficient
    bits = (whole.astype(mx.int32) + FLOAT32_BIAS) << FLOAT32_MANTISSA_BITS
    return series * bits.view(mx.float32) * (x >= SMALLEST)
