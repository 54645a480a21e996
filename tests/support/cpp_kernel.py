"""Runs the body of a GPU kernel on the CPU: as C++, each thread of a group a coroutine of one thread."""

import ctypes
import math
import os
import platform
import shutil
import subprocess
import zlib
from contextlib import contextmanager

import mlx.core as mx
import numpy as np
import pytest
from cpp_tensor_cores import TENSOR_CORES

from metal_gen.models.kernels.dialect import Code

# A program cannot write to arrays of a GPU.
needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None
    or platform.libc_ver()[0] != "glibc"
    or mx.default_device().type != mx.DeviceType.cpu,
    reason="there is no C++ compiler with coroutines of the C library here, or there is a GPU",
)

TYPES = {
    mx.float32: "float",
    mx.float16: "_Float16",
    mx.bfloat16: "Brain",
    mx.int32: "int",
    mx.uint32: "unsigned",
    mx.bool_: "bool",
}
# Checked jumps refuse to go from one stack to another.
COMPILE = ["g++", "-std=c++11", "-O1", "-U_FORTIFY_SOURCE", "-shared", "-fPIC"]
DIALECT = """
#include <cmath>
#include <csetjmp>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <ucontext.h>
struct Brain {
    uint16_t bits;
    Brain() = default;
    explicit Brain(float number) {
        uint32_t all;
        std::memcpy(&all, &number, 4);
        bits = (all + 0x7fff + ((all >> 16) & 1)) >> 16;
    }
    operator float() const {
        const uint32_t all = uint32_t(bits) << 16;
        float number;
        std::memcpy(&number, &all, 4);
        return number;
    }
};
struct Thread {
    jmp_buf place;
    void* stack;
    int lane, row, group, groups, across, beyond;
    bool is_over, waits;
};
static Thread threads[1024];
static float given[1024];
static jmp_buf scheduler;
static Thread* now;
// Unlike swapcontext, jumps call no kernel of an operating system, and there are millions.
static void step_aside() {
    if (!_setjmp(now->place)) _longjmp(scheduler, 1);
}
static float* given_by_row() { return &given[(now - threads) / 32 * 32]; }
// All lanes of a row get here before any goes on, because each runs up to the same point.
static float exchanged(float x, bool sums, int apart) {
    float* all = given_by_row();
    const int lane = now->lane % 32;
    all[lane] = x;
    step_aside();
    float result = sums ? 0.0f : all[lane ^ apart];
    if (sums) for (int i = 0; i < 32; ++i) result += all[i];
    step_aside();
    return result;
}
static float sum_of_lanes(float x) { return exchanged(x, true, 0); }
static float other_lane(float x, int apart) { return exchanged(x, false, apart); }
static void wait_for_group() {
    now->waits = true;
    while (now->waits) step_aside();
}
static float inverse_root(float x) { return 1.0f / std::sqrt(x); }
static float power_of_two(float x) { return std::exp2(x); }
static float exponential(float x) { return std::exp(x); }
static float logarithm(float x) { return std::log(x); }
static float cosine(float x) { return std::cos(x); }
static float sine(float x) { return std::sin(x); }
#define DEVICE
// Arrays of MLX begin anywhere in the memory of a CPU.
#define alignas(bytes)
#define SHARED static
#define WAIT_FOR_GROUP wait_for_group()
"""
RUN = """
static void body() {
    const int lane = now->lane, row = now->row, group = now->group, groups = now->groups;
    const int across = now->across, beyond = now->beyond;
    (void)lane, (void)row, (void)group, (void)groups, (void)across, (void)beyond;
    BODY
}
static void begin() {
    while (true) {
        body();
        now->is_over = true;
        step_aside();
    }
}
static void go_on(Thread& thread) {
    now = &thread;
    if (_setjmp(scheduler)) return;
    if (thread.stack) _longjmp(thread.place, 1);
    const int bytes = 1 << 16;
    ucontext_t context;
    getcontext(&context);
    context.uc_stack.ss_sp = thread.stack = std::malloc(bytes);
    context.uc_stack.ss_size = bytes;
    makecontext(&context, begin, 0);
    setcontext(&context);
}
static void run_group(const int* first, const int* grid, const int* size) {
    const int count = size[0] * size[1] * size[2];
    for (int i = 0; i < count; ++i) {
        Thread& each = threads[i];
        each.lane = i % size[0];
        each.row = i / size[0] % size[1];
        each.group = first[0];
        each.groups = grid[0] / size[0];
        each.across = first[1] * size[1] + each.row;
        each.beyond = first[2] * size[2] + i / size[0] / size[1];
        each.is_over = each.waits = false;
    }
    for (int left = count; left > 0;) {
        int waiting = 0;
        left = 0;
        for (int i = 0; i < count; ++i) {
            if (threads[i].is_over) continue;
            go_on(threads[i]);
            left += !threads[i].is_over;
            waiting += !threads[i].is_over && threads[i].waits;
        }
        if (waiting == left) for (int i = 0; i < count; ++i) threads[i].waits = false;
    }
}
extern "C" void run(const int* grid, const int* size, void** arrays, const int** shapes, const int* ndims) {
    int place = 0;
    SET
    int first[3];
    for (first[2] = 0; first[2] * size[2] < grid[2]; ++first[2])
        for (first[1] = 0; first[1] * size[1] < grid[1]; ++first[1])
            for (first[0] = 0; first[0] * size[0] < grid[0]; ++first[0]) run_group(first, grid, size);
}
"""


@contextmanager
def kernels_as_on_a_gpu(module, monkeypatch, tmp_path, programs):
    """Let a module that chooses a kernel try it as on a GPU, where kernels run as C++."""
    for name, answer in {"runs_on_cpu": False, "runs_on_cuda": True}.items():
        if hasattr(module, name):
            monkeypatch.setattr(module, name, lambda answer=answer: answer)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kernels = CppKernels(programs)
    monkeypatch.setattr(Code, "__call__", kernels.as_method)
    module._chosen.cache_clear()
    yield kernels
    module._chosen.cache_clear()


class CppKernels:
    """Runs kernels in place of a GPU, where `as_method` replaces `Code.__call__`.

    Args:
        folder: Folder for programs.

    Attributes:
        names: Names of the kernels that ran.
    """

    def __init__(self, folder):
        self.folder = folder
        self.names = []

    @property
    def as_method(self):
        """A method of `Code`."""
        return lambda code, *arguments, **options: self._run(code, *arguments, **options)

    def _run(self, code, inputs, results, *, sizes, grid, group):
        """Do as `Code.__call__`. Writes to inputs do happen, as on a GPU."""
        self.names.append(code.name)
        mx.eval(list(inputs))
        types = [TYPES[array.dtype] for array in inputs] + [TYPES[dtype] for _, dtype in results]
        names = [*code.inputs, *code.outputs]
        library = ctypes.CDLL(str(self._built(code, dict(zip(names, types, strict=True)), sizes)))
        outputs = [np.zeros(math.prod(shape) * dtype.size, np.uint8) for shape, dtype in results]
        # Views of MLX's own memory, so that a kernel can write to the cache.
        views = [np.frombuffer(memoryview(array.view(mx.uint8)), np.uint8) for array in inputs]
        arrays = (ctypes.c_void_p * len(names))(*(array.ctypes.data for array in [*views, *outputs]))
        shapes = [(ctypes.c_int * max(1, array.ndim))(*array.shape) for array in inputs]
        library.run(
            (ctypes.c_int * 3)(*grid),
            (ctypes.c_int * 3)(*group),
            arrays,
            (ctypes.POINTER(ctypes.c_int) * len(shapes))(*shapes),
            (ctypes.c_int * len(shapes))(*(array.ndim for array in inputs)),
        )
        return [
            mx.array(array).view(dtype).reshape(shape)
            for array, (shape, dtype) in zip(outputs, results, strict=True)
        ]

    def _built(self, code, types, sizes):
        constants = "".join(
            f"static const int {name} = {value};\n"
            if isinstance(value, int)
            else f"typedef {TYPES[value]} {name};\n"
            for name, value in sizes.items()
        )
        inputs = "".join(
            f"static const {types[name]}* {name};\nstatic const int* {name}_shape;\nstatic int {name}_ndim;\n"
            for name in code.inputs
        )
        outputs = "".join(f"static {types[name]}* {name};\n" for name in code.outputs)
        setting = "".join(f"{name} = ({type}*)arrays[place++];\n" for name, type in types.items())
        setting += "".join(
            f"{name}_shape = shapes[{place}];\n{name}_ndim = ndims[{place}];\n"
            for place, name in enumerate(code.inputs)
        )
        run = RUN.replace("BODY", code.body).replace("SET", setting)
        program = DIALECT + (TENSOR_CORES if code.header else "") + constants + inputs + outputs + run
        name = f"{code.name}-{zlib.crc32(program.encode()):08x}"
        source, library = self.folder / f"{name}.cpp", self.folder / f"{name}.so"
        if not library.exists():
            source.write_text(program)
            # Another process may compile the same.
            built = library.with_suffix(f".{os.getpid()}")
            subprocess.run([*COMPILE, "-o", built, source], check=True)
            built.replace(library)
        return library
