"""Marks for tests that only make sense on one kind of device."""

import pytest

from metal_gen.device.backend import runs_on_cpu

cpu_only = pytest.mark.skipif(not runs_on_cpu(), reason="what a CPU alone does")
