"""What MLX raises where a device has no memory left, which is no bug of this program.

Source: `allocator.cpp` and `device.cpp` of `mlx/backend/metal` and `allocator.cpp` of `mlx/backend/cuda` in
MLX 0.32.
"""

from metal_gen.errors import DoesNotFitError

BEGINNINGS = ("[metal::malloc]", "[malloc", "[METAL] Command buffer execution failed: Insufficient Memory")
HINT = (
    "close other programs, or take a smaller max_seq_len, chunk_size or batch_size, or --quantize 4; "
    "metal-gen plan shows what each takes"
)


def out_of_memory(error: RuntimeError) -> DoesNotFitError | None:
    """The same as an error for people; None where it is about something else."""
    if not str(error).startswith(BEGINNINGS):
        return None
    return DoesNotFitError(f"the device has no memory left: {error}", HINT)
