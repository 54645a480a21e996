"""Drives mlx-lm through its own generation loop; the only file that imports it, and only on request."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import mlx.core as mx

from metal_gen.bench.measurement import MLX_LM
from metal_gen.bench.runners.engine import FIRST_TOKEN, timed
from metal_gen.bench.runners.runner import DecodeRun
from metal_gen.bench.runners.step_graph import count_primitives
from metal_gen.device.backend import dtype_named, runs_on_cpu
from metal_gen.device.buffer_cache import clear_buffer_cache, limit_buffer_cache
from metal_gen.device.compiled_code import require_own_code
from metal_gen.errors import MetalGenError, UsageError


def require_mlx_lm() -> None:
    """Check that mlx-lm is installed.

    Raises:
        UsageError: It is not.
    """
    if find_spec("mlx_lm") is None:
        raise UsageError("cannot compare: mlx-lm is not installed", "pip install mlx-lm")


def require_for_mlx_lm(checkpoint: Path) -> None:
    """Check that mlx-lm can read the checkpoint's format.

    Raises:
        UsageError: The checkpoint is a GGUF file, not a folder.
    """
    if not checkpoint.is_dir():
        raise UsageError(f"mlx-lm does not read GGUF files: {checkpoint}", "measure without --compare")


class MlxLmRunner:
    """mlx-lm's model of a checkpoint; each run has a new, growing cache.

    Args:
        folder: The checkpoint.
        dtype: The dtype that the parameters are cast to.
        cache_limit_bytes: MLX's default limit of freed memory, which applies while mlx-lm runs; loading
            metal-gen's model lowers it.

    Raises:
        MetalGenError: mlx-lm cannot load the model, or there is no safe place for its compiled code.
    """

    program = MLX_LM

    def __init__(self, folder: Path, dtype: str, cache_limit_bytes: int) -> None:
        from mlx_lm.utils import load_model

        if runs_on_cpu():
            require_own_code()  # mlx-lm compiles by default
        self._cache_limit_bytes = cache_limit_bytes
        try:
            self.model, _ = load_model(folder)
        except Exception as error:  # with any exception, the comparison is impossible
            raise MetalGenError(
                f"mlx-lm cannot load {folder}: {error}", "measure without --compare"
            ) from error
        self.model.set_dtype(dtype_named(dtype))
        mx.eval(self.model.parameters())

    def first_token_s(self, prompt: Sequence[int]) -> float:
        """See `Runner`."""
        cache = self._cache()
        with self._own_limits():
            begin = time.perf_counter()
            tokens = self._generate(prompt, cache, 1)
            next(tokens)
            taken_s = time.perf_counter() - begin
            _finish(tokens, cache)
        return taken_s

    def decode(self, depth: int, count: int) -> DecodeRun:
        """See `Runner`."""
        cache = self._cache(depth)
        with self._own_limits():
            tokens = self._generate([FIRST_TOKEN], cache, count)
            run = timed(islice(tokens, count))
            _finish(tokens, cache)
        return run

    def greedy_tokens(self, prompt: Sequence[int], count: int) -> list[int]:
        """See `Runner`."""
        cache = self._cache()
        with self._own_limits():
            tokens = self._generate(prompt, cache, count)
            ids = list(islice(tokens, count))
            _finish(tokens, cache)
        return ids

    def primitives(self, depth: int) -> int:
        """See `Runner`; counts what mlx-lm's `generate_step` builds for one token."""
        cache = self._cache(depth)
        logits = self.model(mx.array([[FIRST_TOKEN]]), cache=cache)[:, -1, :]
        logprobs = logits - mx.logsumexp(logits, keepdims=True)
        return count_primitives(mx.argmax(logprobs, axis=-1), logprobs)

    def _cache(self, depth: int = 0) -> list[Any]:
        """Return mlx-lm's cache after `depth` tokens with zero keys and values."""
        from mlx_lm.models.cache import make_prompt_cache

        cache: list[Any] = make_prompt_cache(self.model)
        if depth:
            # Some families have their language model as a part. Linear attention has no keys and values.
            text: Any = getattr(self.model, "language_model", self.model)
            shape = (1, text.args.num_key_value_heads, depth, _head_dim(text.args))
            new = mx.zeros(shape, text.model.norm.weight.dtype)
            for layer in cache:
                if hasattr(layer, "update_and_fetch"):
                    layer.update_and_fetch(new, new)
            _wait(cache)
        return cache

    def _generate(self, prompt: Sequence[int], cache: list[Any], count: int) -> Iterator[int]:
        from mlx_lm.generate import generate_step

        steps = generate_step(mx.array(list(prompt)), self.model, max_tokens=count, prompt_cache=cache)
        return (int(token) for token, _ in steps)

    @contextmanager
    def _own_limits(self) -> Iterator[None]:
        """Give mlx-lm the memory limits that it would have in its own process."""
        from mlx_lm.generate import generation_stream, wired_limit

        before = limit_buffer_cache(self._cache_limit_bytes)
        try:
            with wired_limit(self.model, [generation_stream]):  # type: ignore[list-item]
                yield
        finally:
            limit_buffer_cache(before)
            clear_buffer_cache()


def load_s(folder: Path) -> float:
    """Return the seconds to load model and tokenizer in the stored dtype, as `mlx_lm.load` does."""
    from mlx_lm.utils import load

    begin = time.perf_counter()
    load(str(folder))
    return time.perf_counter() - begin


def _finish(tokens: Iterator[int], cache: list[Any]) -> None:
    """Wait for the step that mlx-lm computes ahead; it would disturb the next measurement."""
    for _ in tokens:
        pass
    _wait(cache)


def _wait(cache: list[Any]) -> None:
    from mlx.utils import tree_flatten

    states = dict(tree_flatten([layer.state for layer in cache]))
    mx.eval([array for array in states.values() if isinstance(array, mx.array)])


def _head_dim(arguments: Any) -> int:
    return int(getattr(arguments, "head_dim", None) or arguments.hidden_size // arguments.num_attention_heads)
