"""The installed MLX build: whether it works, which device it uses, and how much memory the device has.

Answers every question that differs between Metal, CUDA and the CPU.
"""

import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from metal_gen.device.blas import AUTO, blas_in_use, has_cuda, prefer_openblas
from metal_gen.device.compiled_code import keep_own_ptx, require_own_code
from metal_gen.device.limits import control_group_cpus, host_memory_bytes, require_address_space
from metal_gen.errors import BackendError, ConfigError

if TYPE_CHECKING:
    import mlx.core as mx

FIRST_MACOS_THAT_WIRES = 15
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def require_mlx(blas: str = AUTO) -> None:
    """Import MLX, or raise an error with the command that installs a build for this machine.

    Args:
        blas: Library for matrix products on a CPU, as for `prefer_openblas`.

    Raises:
        BackendError: MLX is not installed, is installed without a backend, or finds no GPU on a Mac.
        ConfigError: The named library cannot be used.
        DoesNotFitError: There is no room for MLX's threads.
    """
    require_address_space()
    prefer_openblas(blas, most_threads=control_group_cpus())
    try:
        import mlx.core  # noqa: F401
    except ImportError as error:
        if platform.system() == "Darwin":
            hint = "pip install --force-reinstall mlx  (needs macOS 14 or later on Apple silicon)"
        else:
            hint = "pip install 'mlx[cpu]', or 'mlx[cuda13]' for an NVIDIA GPU: one of them, not both"
        raise BackendError(f"MLX has no backend on this machine: {error}", hint) from error
    if platform.system() == "Darwin":
        _require_gpu()
    if has_cuda():
        keep_own_ptx()


def _require_gpu() -> None:
    """Check that Metal has a device. Some virtual machines and sandboxes have none."""
    import mlx.core as mx

    try:
        mx.device_info()
    except RuntimeError as error:
        raise BackendError(
            f"this session has no GPU that MLX can use: {error}",
            "run it on the Mac itself: some virtual machines and sandboxes offer no GPU to programs",
        ) from error


def mlx_version() -> str:
    """Return the version of the imported MLX. To ask the metadata of packages would take 25 ms."""
    import mlx.core as mx

    return str(vars(mx)["__version__"])


def dtype_named(name: str) -> "mx.Dtype":
    """Return the MLX dtype called `float32`, `bfloat16` or `float16`."""
    import mlx.core as mx

    dtypes: dict[str, mx.Dtype] = {
        "float32": mx.float32,
        "bfloat16": mx.bfloat16,
        "float16": mx.float16,
    }
    return dtypes[name]


def runs_on_cpu() -> bool:
    """Return whether arrays are computed on the CPU rather than on a GPU."""
    import mlx.core as mx

    return mx.default_device().type == mx.DeviceType.cpu


def runs_on_metal() -> bool:
    """Return whether arrays are computed on the GPU of a Mac."""
    import mlx.core as mx

    return not runs_on_cpu() and mx.metal.is_available()


def runs_on_cuda() -> bool:
    """Return whether arrays are computed on an NVIDIA GPU."""
    return not runs_on_cpu() and not runs_on_metal()


def device_name() -> str:
    """Return the name of the device for users, such as `Apple M3 Max, Metal`."""
    import mlx.core as mx

    backend = "CPU" if runs_on_cpu() else "CUDA" if runs_on_cuda() else "Metal"
    return f"{mx.device_info().get('device_name', 'unknown device')}, {backend}"


@contextmanager
def on_cpu() -> Iterator[None]:
    """Compute on the CPU inside, whatever the default device is."""
    import mlx.core as mx

    before = mx.default_device()
    mx.set_default_device(mx.cpu)
    try:
        yield
    finally:
        mx.set_default_device(before)


def dtype_to_compute_in(
    wanted: str, checkpoint_dtype: str, *, has_experts: bool, is_quantized: bool = False
) -> str:
    """Return the dtype of weights and results.

    A GPU computes in the checkpoint's own dtype. On a CPU, a BLAS computes in float32, and nothing has fast
    half-precision kernels. But the reference BLAS is so slow that MLX's bfloat16 is faster, because its
    weights are smaller. For quantized matrices on a CPU, MLX adds products up in the dtype itself, which
    loses a few percent of precision in bfloat16 and is slower too.

    Args:
        wanted: Name of a dtype, or `auto`.
        checkpoint_dtype: Dtype of the stored weights.
        has_experts: Whether matrices are gathered, which MLX supports on a CPU in float32 only.
        is_quantized: Whether there are quantized matrices.

    Raises:
        ConfigError: The wanted dtype cannot be computed.
    """
    if not runs_on_cpu():
        return checkpoint_dtype if wanted == AUTO else wanted
    if has_experts and wanted not in (AUTO, "float32"):
        raise ConfigError(
            f"dtype = {wanted!r} is not supported: on a CPU, MLX computes experts in float32 only",
            "leave dtype under [model], or --model-dtype, at auto",
        )
    if wanted != AUTO:
        return wanted
    blas = blas_in_use()
    keeps_bfloat16 = checkpoint_dtype == "bfloat16" and blas is not None and blas.is_reference
    return "bfloat16" if keeps_bfloat16 and not has_experts and not is_quantized else "float32"


def preferred_chunk_size() -> int:
    """Return the default number of prompt tokens to compute at once.

    A GPU waits at the end of each chunk. A CPU, whose attention keeps all scores, gains nothing from more.
    """
    return 512 if runs_on_cpu() else 2048


def prompt_stride() -> int:
    """Return the number of prompt tokens in one part of a batch; rows share multiples of it.

    More tokens keep a GPU busy. Fewer tokens allow more sharing.
    """
    return 64 if runs_on_cpu() else 256


def compiles_steps(wanted: str, most_slots: int = 1, *, has_kernel: bool = False) -> bool:
    """Return whether to compile the decode step.

    `auto` compiles it with Metal, and with CUDA where a kernel computes attention or for several texts at
    once. Without the kernel, a compiled step needs attention with a mask, and CUDA has no fused one, so for
    one text the step is slower there. For a CPU, MLX writes C++ and calls a compiler, which takes some
    seconds at the first step of a machine's first run. Only a very small model gains much by it.

    Args:
        wanted: `auto`, `on` or `off`.
        most_slots: Maximum number of texts generated at once.
        has_kernel: Whether a kernel computes the attention of new tokens.

    Raises:
        ConfigError: It is `on`, and MLX cannot compile here, as for `require_compiler`.
    """
    import mlx.core as mx

    if wanted == "on":
        require_compiler()
        return True
    usual = has_kernel or mx.metal.is_available() or most_slots > 1
    return wanted == AUTO and not runs_on_cpu() and usual


def require_compiler() -> None:
    """Check that MLX can compile functions on this device.

    Raises:
        ConfigError: It is a CPU, and there is no compiler, or no safe place for compiled code.
    """
    if not runs_on_cpu():
        return
    if shutil.which("g++") is None:
        raise ConfigError(
            "compile = 'on' is not possible: on a CPU, MLX compiles with g++, which is not installed",
            "install g++, or leave it at auto: on a CPU there is little to gain",
        )
    require_own_code()


def available_memory_bytes() -> int:
    """Return the memory that the default device can still give to arrays, in bytes; 0 if unknown.

    Metal reports the recommended size of the working set, and CUDA the card's memory. On the CPU it is what
    the operating system, or any limit on this process, leaves.
    """
    import mlx.core as mx

    if runs_on_cpu():
        return host_memory_bytes()
    info = mx.device_info()
    for key in ("max_recommended_working_set_size", "free_memory", "total_memory", "memory_size"):
        if value := int(info.get(key, 0)):
            return max(0, value - (0 if key == "free_memory" else mx.get_active_memory()))
    return 0


def most_array_bytes() -> int:
    """Return the bytes of the largest array that the device allows; 0 if unknown.

    On a Mac they are about half of its memory.
    """
    import mlx.core as mx

    return 0 if runs_on_cpu() else int(mx.device_info().get("max_buffer_length", 0))


def product_scratch_bytes() -> int:
    """Return the bytes that cuBLAS may take beside a product's matrices; 0 without CUDA.

    Source: `CublasPreference` in `mlx/backend/cuda/cublas_utils.cpp`.
    """
    import mlx.core as mx

    if not runs_on_cuda():
        return 0
    is_hopper_or_later = int(mx.device_info().get("compute_capability_major", 0)) >= 9
    return (32 if is_hopper_or_later else 4) << 20


def counts_other_programs() -> bool:
    """Return whether `available_memory_bytes` excludes memory of other programs; on a Mac it does not."""
    return platform.system() != "Darwin"


def can_wire_memory() -> bool:
    """Return whether this device can wire memory: Metal can, from macOS 15 on."""
    if not runs_on_metal():
        return False
    major = platform.mac_ver()[0].partition(".")[0]
    return major.isdecimal() and int(major) >= FIRST_MACOS_THAT_WIRES


def wires_memory(wanted: bool | None) -> bool:
    """Return whether to wire the memory of a run: by default wherever the device can.

    mlx-lm wires the whole recommended working set.

    Args:
        wanted: The setting; None if it is not set.
    """
    return wanted is not False and can_wire_memory()


def wire_memory(nbytes: int) -> None:
    """Wire this many bytes of arrays in memory, at most the recommended working set.

    Without wiring, macOS may compress or swap out memory that was not used for a while, and the next token
    waits for it. MLX refuses a limit above the recommended working set. Arrays beyond the limit stay unwired.

    Args:
        nbytes: Bytes of the arrays of a run.
    """
    import mlx.core as mx

    allowed = int(mx.device_info().get("max_recommended_working_set_size", 0))
    mx.set_wired_limit(min(nbytes, allowed))
