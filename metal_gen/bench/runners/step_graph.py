"""Counts the operations in the graph of arrays that are not computed yet."""

import io
import re

import mlx.core as mx

# Operations that only describe an array in another way. The device has no work with them, unless a reshape
# has to copy.
VIEWS = frozenset(
    (
        "AsStrided",
        "Broadcast",
        "BroadcastAxes",
        "Depends",
        "ExpandDims",
        "Flatten",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "StopGradient",
        "Transpose",
        "Unflatten",
        "View",
    )
)
_OPERATION = re.compile(r'label ?= ?"([^"]*)", shape=rectangle')


def operations(*outputs: mx.array) -> list[str]:
    """Return MLX's name of each operation, in any order."""
    graph = io.StringIO()
    mx.export_to_dot(graph, *outputs)
    return _OPERATION.findall(graph.getvalue())


def count_primitives(*outputs: mx.array) -> int:
    """Return the number of operations, views included."""
    return len(operations(*outputs))


def count_device_operations(*outputs: mx.array) -> int:
    """Return the number of operations that the device computes."""
    return sum(name not in VIEWS for name in operations(*outputs))
