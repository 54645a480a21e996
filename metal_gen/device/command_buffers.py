"""Sizes the command buffers of Metal, before MLX creates its device.

MLX begins a new command buffer after 40 or 50 operations, or as soon as the arrays that they use have more
than 40 or 50 times 2^20 elements. It counts whole arrays, even if a step reads a small part of them: a nearly
empty cache of fixed size, or the matrices of all experts. Each command buffer costs about 20 microseconds.

MLX reads both variables once, when it creates the device. On other devices they have other meanings.

Source: `CommandEncoder::needs_commit` and `Device::Device` in `mlx/backend/metal/device.cpp` of MLX 0.32.
"""

import os
import platform

OPERATIONS, ELEMENTS = "MLX_MAX_OPS_PER_BUFFER", "MLX_MAX_MB_PER_BUFFER"
COMMAND_BUFFERS = (OPERATIONS, ELEMENTS)
# MLX's own limit on the larger chips, in 2^20 elements.
USUAL_ELEMENTS = 50
# A command buffer keeps its intermediate results until it ends, and the system stops one that takes seconds.
MOST_ELEMENTS = 1000
# About two layers, whose results the memory plan includes.
FEWER_OPERATIONS = 30
# Smaller differences are not worth it.
LEAST_SURPLUS = 1.2


def size_command_buffers(surplus: float) -> None:
    """Let command buffers use as many more elements as the arrays of a step exceed what it reads.

    The work in a command buffer then stays as large as MLX intends. Does nothing on other systems, or if the
    user has set one of the variables.

    Args:
        surplus: Elements of all arrays that a step uses, divided by the elements that it reads.
    """
    if platform.system() != "Darwin" or any(name in os.environ for name in COMMAND_BUFFERS):
        return
    if surplus < LEAST_SURPLUS:
        return
    os.environ[ELEMENTS] = str(min(MOST_ELEMENTS, round(USUAL_ELEMENTS * surplus)))
    os.environ[OPERATIONS] = str(FEWER_OPERATIONS)
