#!/usr/bin/env python3
"""Writes tests/data/golden_sampling.safetensors: probabilities after transformers' logits processors.

Run it from the repository's root, with torch and transformers installed:

    PYTHONPATH=. python scripts/make_sampling_goldens.py

For every case of tests/support/sampling_reference.py, the file has float32 probabilities of the processed
scores, (cases, V), computed in float64; a removed token has 0. Transformers has no processors for the
presence and frequency penalties. It treats ties differently, so there are none.
"""

import sys
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.numpy import save_file

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "support"))

from sampling_reference import GoldenCase, golden_cases  # noqa: E402


def reference(case: GoldenCase) -> np.ndarray:
    """Return the probabilities (V,) after the processors, in the order of `generate`."""
    strategy = case.strategy
    processors = transformers.LogitsProcessorList()
    if strategy.repetition_penalty != 1:
        processors.append(transformers.RepetitionPenaltyLogitsProcessor(strategy.repetition_penalty))
    if strategy.temperature != 1:
        processors.append(transformers.TemperatureLogitsWarper(strategy.temperature))
    if strategy.top_k is not None:
        processors.append(transformers.TopKLogitsWarper(strategy.top_k))
    if strategy.top_p is not None:
        processors.append(transformers.TopPLogitsWarper(strategy.top_p))
    if strategy.min_p is not None:
        processors.append(transformers.MinPLogitsWarper(strategy.min_p))
    scores = torch.tensor(case.logits, dtype=torch.float64)[None]
    processed = processors(torch.tensor([[*case.prompt, *case.generated]]), scores)
    return np.asarray(torch.softmax(processed, dim=-1)[0].numpy(), dtype=np.float32)


def main() -> None:
    """Compute every case and write the file."""
    probabilities = np.stack([reference(case) for case in golden_cases()])
    out = ROOT / "tests" / "data" / "golden_sampling.safetensors"
    versions = {"transformers": transformers.__version__, "torch": torch.__version__}
    save_file({"probabilities": probabilities}, out, metadata=versions)
    print(f"{out.relative_to(ROOT)}: {len(probabilities)} cases, {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
