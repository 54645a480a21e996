"""Kernels that fail a trial, and the reason that is given."""

import mlx.core as mx
import pytest


def refuse(*arguments, **options):
    raise RuntimeError("[compile] Failed to compile kernel\nand much more")


def ones(code, inputs, results, **options):
    return [mx.ones(*result) for result in results]


def not_finite(code, inputs, results, **options):
    return [mx.full(shape, mx.nan, dtype) for shape, dtype in results]


REFUSED = "RuntimeError: [compile] Failed to compile kernel"
# In place of `Code.__call__`.
FAILING_KERNELS = [
    pytest.param(refuse, REFUSED, id="refused"),
    pytest.param(ones, "its numbers differ by", id="wrong"),
    pytest.param(not_finite, "its numbers differ by nan", id="not finite"),
]
