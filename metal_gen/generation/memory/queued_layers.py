"""Estimates the memory of the layers that a GPU has in its queue."""

from dataclasses import dataclass

from metal_gen.device.backend import runs_on_cuda

# Enough to keep a GPU busy.
LAYERS_AHEAD = 4
# What MLX hands to an NVIDIA GPU together reads at most so many elements (from Hopper on), and has at most as
# many operations as some 5 layers.
# Source: `get_graph_limits` and `set_input_array` in `mlx/backend/cuda/device.cpp`.
CUDA_GRAPH_ELEMENTS, CUDA_GRAPH_LAYERS = 1000 << 20, 5


@dataclass(frozen=True, kw_only=True)
class QueuedLayers:
    """The layers of a prompt that are queued together.

    MLX queues hundreds of operations ahead on a GPU and takes all their memory at once. There is a limit for
    it, which MLX exceeds in two cases: by the array that it is about to compute, and by what it hands over
    together.

    Args:
        attention_bytes: Bytes of a layer with attention.
        usual_bytes: Bytes of a layer of the kind that most layers are.
        scores_bytes: Bytes of the attention scores of one part of a prompt; 0 if they are not in memory.
        read_elements: Elements that the operations of a usual layer read, weights and results.
    """

    attention_bytes: int
    usual_bytes: int
    scores_bytes: int
    read_elements: int

    @property
    def limit_bytes(self) -> int:
        """Memory after which MLX is made to wait. In a row of layers, one with attention counts."""
        return self.attention_bytes + LAYERS_AHEAD * self.usual_bytes - self._largest_bytes

    @property
    def peak_bytes(self) -> int:
        """Peak memory of the queue."""
        return max(self.limit_bytes + self.scores_bytes, self._graph_bytes)

    @property
    def _largest_bytes(self) -> int:
        return max(self.attention_bytes, self.usual_bytes)

    @property
    def _graph_bytes(self) -> int:
        """Memory of what MLX hands to CUDA together, whatever the limit: one layer is the largest one."""
        if not runs_on_cuda():
            return 0
        layers = min(CUDA_GRAPH_LAYERS, -(-CUDA_GRAPH_ELEMENTS // self.read_elements))
        return self._largest_bytes + (layers - 1) * self.usual_bytes
