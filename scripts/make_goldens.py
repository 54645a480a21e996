#!/usr/bin/env python3
"""Writes golden_*.safetensors in tests/data: logits of tiny checkpoints, by transformers.

Run it from the repository's root, with torch and transformers installed:

    python scripts/make_goldens.py

For every configuration of tests/support/checkpoints/tiny_checkpoint.py, the file has the float32 logits
of the prompt, (tokens, V), and the ids of the greedy continuation. A configuration with experts is
refused if, at any token, the last chosen expert and the first one left out are so close that rounding
could swap them. Any difference that a test finds is then an error.
"""

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.numpy import save_file

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "support" / "checkpoints"))

from long_goldens import NEW_TOKENS, hybrid_goldens, long_goldens, long_prompt  # noqa: E402
from tiny_checkpoint import GREEDY_TOKENS, PROMPT, golden_configs, write_checkpoint  # noqa: E402

# Margin between scores of about 1, which float32 rounding changes by about 1e-6.
SMALLEST_MARGIN = 1e-4


def watch_routers(model: torch.nn.Module, margins: list[float]) -> None:
    """Collect the margins between the last chosen expert and the first one left out."""

    def note(router: torch.nn.Module, _: object, outputs: tuple[torch.Tensor, ...]) -> None:
        ordered = outputs[0].sort(-1, descending=True).values
        if router.top_k < ordered.shape[-1]:
            margins.append((ordered[:, router.top_k - 1] - ordered[:, router.top_k]).min().item())

    for module in model.modules():
        if type(module).__name__.endswith("TopKRouter"):
            module.register_forward_hook(note)


def reference(
    name: str, folder: Path, prompt_ids: list[int], new_tokens: int, *, with_new: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return logits of the prompt, or those that new tokens were taken from, and the greedy continuation."""
    has_vision = "vision_config" in json.loads((folder / "config.json").read_text())
    kind = transformers.AutoModelForImageTextToText if has_vision else transformers.AutoModelForCausalLM
    model, report = kind.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    if absent := [tensor for tensor in report["missing_keys"] if "visual" not in tensor]:
        sys.exit(
            f"{name}: transformers does not find {absent[0]} in the files of "
            "tests/support/checkpoints/tiny_checkpoint.py"
        )
    model = model.eval()
    margins: list[float] = []
    watch_routers(model, margins)
    prompt = torch.tensor([prompt_ids])
    with torch.no_grad():
        generated = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            max_new_tokens=new_tokens,
            eos_token_id=None,
            pad_token_id=0,
        )
        logits = model(generated[:, :-1] if with_new else prompt).logits[0].numpy()
    if min(margins, default=1.0) < SMALLEST_MARGIN:
        sys.exit(f"{name}: rounding could choose another expert, the margin is {min(margins):.1e}")
    return logits[len(prompt_ids) - 1 :] if with_new else logits, generated[0, len(prompt_ids) :].numpy()


def short_goldens() -> Iterator[tuple[str, np.ndarray]]:
    """Yield logits of the prompt and the greedy continuation of every configuration."""
    for name, config in golden_configs():
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = write_checkpoint(Path(folder), config)
            logits, ids = reference(name, checkpoint, PROMPT, GREEDY_TOKENS)
        yield f"{name}.logits", logits.astype(np.float32)
        yield f"{name}.greedy", ids.astype(np.uint8)


def long_ones(
    configs: Callable[[], Iterator[tuple[str, dict[str, Any], int]]],
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the continuation of long prompts, and the logits that its tokens were taken from."""
    for name, config, length in configs():
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = write_checkpoint(Path(folder), config)
            logits, ids = reference(name, checkpoint, long_prompt(length), NEW_TOKENS, with_new=True)
        yield f"{name}.logits", logits.astype(np.float32)
        yield f"{name}.greedy", ids.astype(np.uint8)


def main() -> None:
    """Compute every configuration and write the files."""
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)  # the products are tiny, and more threads would only wait for each other
    versions = {"transformers": transformers.__version__, "torch": torch.__version__}
    for file, made in (
        ("golden_logits", short_goldens()),
        ("golden_long", long_ones(long_goldens)),
        ("golden_hybrid", long_ones(hybrid_goldens)),
    ):
        goldens = dict(made)
        out = ROOT / "tests" / "data" / f"{file}.safetensors"
        save_file(goldens, out, metadata=versions)
        print(f"{out.relative_to(ROOT)}: {len(goldens) // 2} configurations, {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
