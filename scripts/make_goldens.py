#!/usr/bin/env python3
"""Writes tests/data/golden_logits.safetensors: what transformers computes for the tiny checkpoints.

Run it from the repository's root, where torch and transformers are installed:

    python scripts/make_goldens.py

For every configuration of tests/tiny_checkpoint.py it holds the float32 logits of the prompt,
(tokens, V), and the ids of the greedy continuation.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.numpy import save_file

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from tiny_checkpoint import GREEDY_TOKENS, PROMPT, golden_configs, write_checkpoint  # noqa: E402


def reference(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the prompt's logits and the greedy continuation."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    prompt = torch.tensor([PROMPT])
    with torch.no_grad():
        logits = model(prompt).logits[0].numpy()
        generated = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            max_new_tokens=GREEDY_TOKENS,
            eos_token_id=None,
            pad_token_id=0,
        )
    return logits, generated[0, len(PROMPT) :].numpy()


def main() -> None:
    """Compute every configuration and write the file."""
    transformers.logging.set_verbosity_error()
    goldens = {}
    for name, config in golden_configs():
        with tempfile.TemporaryDirectory() as folder:
            logits, ids = reference(write_checkpoint(Path(folder), config))
        goldens[f"{name}.logits"] = logits.astype(np.float32)
        goldens[f"{name}.greedy"] = ids.astype(np.uint8)
    out = ROOT / "tests" / "data" / "golden_logits.safetensors"
    versions = {"transformers": transformers.__version__, "torch": torch.__version__}
    save_file(goldens, out, metadata=versions)
    print(f"{out.relative_to(ROOT)}: {len(goldens) // 2} configurations, {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
