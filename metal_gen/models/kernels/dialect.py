"""Compiles one body of code for Metal or for CUDA.

A body is the inside of a function in the part of C++ that both have. Before it, each dialect declares where a
thread is:

- `lane`, `row`: its place in its group along the first and the second axis. 32 successive lanes run together.
- `group`, `groups`: the place of its group along the first axis of the grid, and their number there.
- `across`, `beyond`: its place in the grid along the second and the third axis.

A body may read `NAME_shape` and `NAME_ndim` of an input NAME, call `sum_of_lanes` and `other_lane` (over 32
lanes), `inverse_root`, `power_of_two`, `exponential`, `logarithm`, `cosine` and `sine`, wait with
`WAIT_FOR_GROUP`, declare arrays that a group shares with `SHARED`, and say with `DEVICE` that a pointer
points to an input or an output.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import mlx.core as mx

LANES = 32

Size = int | mx.Dtype


@dataclass(frozen=True)
class Dialect:
    """What a language needs around a body.

    Attributes:
        header: What a body may call.
        place: Declares where a thread is.
    """

    header: str
    place: str


# The functions are those of MLX's own kernels, so that numbers are the same.
METAL = Dialect(
    header="""
#define DEVICE device
#define SHARED threadgroup
#define WAIT_FOR_GROUP threadgroup_barrier(mem_flags::mem_device | mem_flags::mem_threadgroup)
inline float sum_of_lanes(float x) { return metal::simd_sum(x); }
inline float other_lane(float x, int apart) { return metal::simd_shuffle_xor(x, ushort(apart)); }
inline float inverse_root(float x) { return metal::precise::rsqrt(x); }
inline float power_of_two(float x) { return metal::fast::exp2(x); }
inline float exponential(float x) { return metal::precise::exp(x); }
inline float logarithm(float x) { return metal::precise::log(x); }
inline float cosine(float x) { return metal::fast::cos(x); }
inline float sine(float x) { return metal::fast::sin(x); }
""",
    place="""
    const int lane = thread_position_in_threadgroup.x, row = thread_position_in_threadgroup.y;
    const int group = threadgroup_position_in_grid.x, groups = threadgroups_per_grid.x;
    const int across = thread_position_in_grid.y, beyond = thread_position_in_grid.z;
""",
)
CUDA = Dialect(
    header="""
#define DEVICE
#define SHARED __shared__
#define WAIT_FOR_GROUP __syncthreads()
__device__ inline float sum_of_lanes(float x) {
    for (int apart = 16; apart > 0; apart /= 2) x += __shfl_xor_sync(0xffffffff, x, apart);
    return x;
}
__device__ inline float other_lane(float x, int apart) { return __shfl_xor_sync(0xffffffff, x, apart); }
__device__ inline float inverse_root(float x) { return rsqrtf(x); }
__device__ inline float power_of_two(float x) {
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
    return power;
}
__device__ inline float exponential(float x) { return expf(x); }
__device__ inline float logarithm(float x) { return logf(x); }
// CUDA's own are much code. Whole turns are taken off, by a number in two parts; what is left is within 1e-6.
__device__ inline float within_a_turn(float x) {
    const float turns = rintf(x * 0.15915494f);
    return fmaf(turns, 1.7484556e-7f, fmaf(-turns, 6.2831855f, x));
}
__device__ inline float cosine(float x) { return __cosf(within_a_turn(x)); }
__device__ inline float sine(float x) { return __sinf(within_a_turn(x)); }
""",
    place="""
    const int lane = threadIdx.x, row = threadIdx.y, group = blockIdx.x, groups = gridDim.x;
    const int across = blockIdx.y * blockDim.y + threadIdx.y, beyond = blockIdx.z * blockDim.z + threadIdx.z;
""",
)


@dataclass(frozen=True)
class Code:
    """A kernel that can be compiled.

    Attributes:
        name: Name of the kernel, unique among all.
        inputs: Names of its inputs.
        outputs: Names of its outputs.
        body: Its body.
        header: What it calls besides what each dialect has, in whole lines, since MLX's own code follows. It
            is then a kernel of one dialect alone.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    body: str
    header: str = ""

    def __call__(
        self,
        inputs: Sequence[mx.array],
        results: Sequence[tuple[Sequence[int], mx.Dtype]],
        *,
        sizes: Mapping[str, Size],
        grid: tuple[int, int, int],
        group: tuple[int, int, int],
    ) -> list[mx.array]:
        """Run the kernel on a GPU.

        Args:
            inputs: Its inputs.
            results: Shape and dtype of each output.
            sizes: Numbers and dtypes by their names in the body; each set of them is compiled once.
            grid: Number of threads along each axis.
            group: Number of threads in a group along each axis.

        Raises:
            RuntimeError: It cannot be compiled, now or when it is computed.
        """
        outputs: list[mx.array] = _compiled(self)(
            inputs=list(inputs),
            template=list(sizes.items()),
            grid=grid,
            threadgroup=group,
            output_shapes=[shape for shape, _ in results],
            output_dtypes=[dtype for _, dtype in results],
        )
        return outputs


def dialect_here() -> Dialect:
    """Return the dialect of this build of MLX."""
    return METAL if mx.metal.is_available() else CUDA


@cache
def _compiled(code: Code) -> Callable[..., Any]:
    dialect = dialect_here()
    make: Any = mx.fast.metal_kernel if dialect is METAL else mx.fast.cuda_kernel
    kernel: Callable[..., Any] = make(
        name=f"metal_gen_{code.name}",
        input_names=list(code.inputs),
        output_names=list(code.outputs),
        # MLX reads the source at every run, to recognize it.
        source="\n".join(line.strip() for line in (dialect.place + code.body).splitlines()),
        header=dialect.header + code.header,
    )
    return kernel
