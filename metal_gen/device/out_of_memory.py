"""Recognises MLX's errors for a device without free memory, which are not bugs of this program.

Source: `allocator.cpp` and `device.cpp` of `mlx/backend/metal` and `allocator.cpp` of `mlx/backend/cuda` in
MLX 0.32.
"""

from metal_gen.errors import DoesNotFitError

BEGINNINGS = ("[metal::malloc]", "[malloc", "[METAL] Command buffer execution failed: Insufficient Memory")
HINT = (
    "close other programs, or use a smaller max_seq_len, chunk_size or batch_size, or --quantize 4; "
    "`metal-gen plan` shows how much each takes"
)


def out_of_memory(error: RuntimeError) -> DoesNotFitError | None:
    """Convert the error into one for users, or return None if it is about something else."""
    if not str(error).startswith(BEGINNINGS):
        return None
    return DoesNotFitError(f"the device has no memory left: {error}", HINT)
