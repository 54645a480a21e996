"""Tests that MLX's errors without memory or a GPU become a message and an exit code."""

import platform

import mlx.core as mx
import pytest

from metal_gen.device.backend import require_mlx
from metal_gen.engine.decoder import Decoder
from metal_gen.errors import BackendError

pytest_plugins = ("fixtures_cli", "fixtures_text")
DOES_NOT_FIT = 6
BY_METAL = (
    "[METAL] Command buffer execution failed: Insufficient Memory (00000008:kIOGPUCommandBuffer)",
    "[metal::malloc] Attempting to allocate 9 bytes which is greater than the maximum of 8 bytes.",
    "[malloc_or_wait] Unable to allocate 9 bytes.",
)


@pytest.mark.parametrize("words", BY_METAL)
def test_no_memory_left_is_a_sentence(run_here, speaker, monkeypatch, words):
    def fail(self, *arguments, **options):
        raise RuntimeError(words)

    monkeypatch.setattr(Decoder, "prefill", fail)
    outcome = run_here("generate", "-m", speaker, "-p", "hi")
    assert outcome.code == DOES_NOT_FIT
    assert "the device has no memory left" in outcome.stderr
    assert "hint: close other programs" in outcome.stderr


def test_another_error_of_mlx_keeps_its_traceback(run_here, speaker, monkeypatch):
    def fail(self, *arguments, **options):
        raise RuntimeError("[matmul] shapes differ")

    monkeypatch.setattr(Decoder, "prefill", fail)
    with pytest.raises(RuntimeError, match="shapes differ"):
        run_here("generate", "-m", speaker, "-p", "hi")


def test_a_mac_without_a_gpu_is_a_sentence(monkeypatch):
    def refuse():
        raise RuntimeError("[metal::load_device] No Metal device available.")

    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(mx, "device_info", refuse)
    with pytest.raises(BackendError, match="no GPU that MLX can use") as caught:
        require_mlx("off")
    assert "virtual machines" in caught.value.hint
