"""The MLX build in use: whether it is there, what device it runs on, how much memory that has.

Owns every question whose answer differs between Metal, CUDA and the CPU.
"""

import platform
import shutil
from typing import TYPE_CHECKING

from metal_gen.device.blas import AUTO, blas_in_use, has_cuda, prefer_openblas
from metal_gen.device.compiled_code import keep_own_ptx, require_own_code
from metal_gen.device.limits import control_group_cpus, host_memory_bytes, require_address_space
from metal_gen.errors import BackendError, ConfigError

if TYPE_CHECKING:
    import mlx.core as mx

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def require_mlx(blas: str = AUTO) -> None:
    """Import MLX, or say which command installs a build of it for this machine.

    Args:
        blas: The library for matrix products on a CPU, as for `prefer_openblas`.

    Raises:
        BackendError: MLX is not installed, is installed without a backend, or finds no GPU on a Mac.
        ConfigError: The library that was named cannot be used.
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
    """See that Metal has a device: in some virtual machines and sandboxes it has none."""
    import mlx.core as mx

    try:
        mx.device_info()
    except RuntimeError as error:
        raise BackendError(
            f"this session has no GPU that MLX can use: {error}",
            "run it on the Mac itself: some virtual machines and sandboxes offer no GPU to programs",
        ) from error


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


def device_name() -> str:
    """The device as a person would name it: `Apple M3 Max, Metal`."""
    import mlx.core as mx

    backend = "CPU" if runs_on_cpu() else "Metal" if mx.metal.is_available() else "CUDA"
    return f"{mx.device_info().get('device_name', 'unknown device')}, {backend}"


def dtype_to_compute_in(
    wanted: str, checkpoint_dtype: str, *, has_experts: bool, is_quantized: bool = False
) -> str:
    """The dtype of weights and results.

    A GPU computes in the checkpoint's own dtype. On a CPU a BLAS computes in float32 and nothing
    has fast half-precision kernels; but the reference BLAS is so slow that MLX's bfloat16 is
    faster, by its smaller weights. Products of quantized matrices MLX adds up in the dtype itself
    there, which in bfloat16 loses a few percent and is slower too.

    Args:
        wanted: A dtype's name, or `auto`.
        checkpoint_dtype: What the weights are stored in.
        has_experts: There are matrices to be gathered, which MLX does on a CPU in float32 only.
        is_quantized: There are quantized matrices.

    Raises:
        ConfigError: What is wanted cannot be computed.
    """
    if not runs_on_cpu():
        return checkpoint_dtype if wanted == AUTO else wanted
    if has_experts and wanted not in (AUTO, "float32"):
        raise ConfigError(
            f"dtype = {wanted!r} cannot be computed: on a CPU MLX has experts in float32 only",
            "leave dtype under [model], or --model-dtype, at auto",
        )
    if wanted != AUTO:
        return wanted
    blas = blas_in_use()
    keeps_bfloat16 = checkpoint_dtype == "bfloat16" and blas is not None and blas.is_reference
    return "bfloat16" if keeps_bfloat16 and not has_experts and not is_quantized else "float32"


def preferred_chunk_size() -> int:
    """Prompt tokens to compute at once when nothing else is asked for.

    A GPU waits at the end of each chunk; a CPU, whose attention keeps all scores, has nothing to gain.
    """
    return 512 if runs_on_cpu() else 2048


def prompt_stride() -> int:
    """Prompt tokens of a batch that attention looks at together, and whose multiples rows can share.

    More of them keep a GPU busy; fewer share more.
    """
    return 64 if runs_on_cpu() else 256


def compiles_steps(wanted: str, most_slots: int = 1) -> bool:
    """Return whether the step from one token to the next is to be compiled.

    `auto` does so with Metal, and with CUDA for several texts at once. CUDA has no fused attention with
    a mask, which a compiled step needs: for one text the step is slower there. For a CPU MLX writes C++
    and calls a compiler, some seconds at the first step of a machine's first run; only a very small
    model gains much by it.

    Args:
        wanted: `auto`, `on` or `off`.
        most_slots: Texts that may be generated at once.

    Raises:
        ConfigError: It is wanted on a CPU, and there is no compiler, or no safe place for what it makes.
    """
    import mlx.core as mx

    if wanted != "on":
        return wanted == AUTO and not runs_on_cpu() and (mx.metal.is_available() or most_slots > 1)
    if runs_on_cpu():
        if shutil.which("g++") is None:
            raise ConfigError(
                "compile = 'on' cannot be done: on a CPU MLX compiles through g++, which is not installed",
                "install g++, or leave it at auto: on a CPU there is little to gain",
            )
        require_own_code()
    return True


def available_memory_bytes() -> int:
    """Memory that the default device can still give to arrays, in bytes.

    Metal reports the size of the working set it recommends and CUDA the card's memory; on the
    CPU it is what the operating system, or whatever limits this process, has left.
    Returns 0 where none of them says.
    """
    import mlx.core as mx

    if runs_on_cpu():
        return host_memory_bytes()
    info = mx.device_info()
    for key in ("max_recommended_working_set_size", "free_memory", "total_memory", "memory_size"):
        if value := int(info.get(key, 0)):
            return max(0, value - (0 if key == "free_memory" else mx.get_active_memory()))
    return 0


def can_wire_memory() -> bool:
    """Return whether this device can be asked to keep memory where it is: Metal, from macOS 15 on."""
    import mlx.core as mx

    return not runs_on_cpu() and mx.metal.is_available()


def wire_memory(nbytes: int) -> None:
    """Have so many bytes of arrays kept in memory, or as many as the system allows.

    Without it macOS may compress what was not used for a while, or swap it out, and the next token waits
    for it. With it other programs have less, which is why nothing is wired unless somebody asks.

    Args:
        nbytes: What the arrays of a run will take.
    """
    import mlx.core as mx

    allowed = int(mx.device_info().get("max_recommended_working_set_size", 0))
    mx.set_wired_limit(min(nbytes, allowed))
