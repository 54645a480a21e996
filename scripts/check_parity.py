#!/usr/bin/env python3
"""Compares a checkpoint's logits and greedy text with Hugging Face transformers, in float32.

Needs torch and transformers in addition to metal-gen, and memory for two copies of the model.

    python scripts/check_parity.py Qwen/Qwen3-0.6B
    python scripts/check_parity.py ./my-checkpoint --tokens 128

Exits with 1 if logits differ by more than 1e-4 of the largest one, or a greedy id differs.
"""

import argparse
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import torch
import transformers

import metal_gen
from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.files.json_file import read_json
from metal_gen.generation.prompt import encode_prompt
from metal_gen.hub.locate import locate_checkpoint

PROMPT = "Tell me a story about a fox who lost a lantern."
TOLERANCE = 1e-4


def reference(folder: Path, ids: list[int], count: int) -> tuple[np.ndarray, list[int]]:
    """Return the prompt's logits (L, V) and the greedy continuation, computed by transformers."""
    has_vision = "vision_config" in read_json(folder / "config.json")
    kind = transformers.AutoModelForImageTextToText if has_vision else transformers.AutoModelForCausalLM
    model = kind.from_pretrained(folder, dtype=torch.float32).eval()
    prompt = torch.tensor([ids])
    with torch.no_grad():
        logits = model(prompt).logits[0].numpy()
        generated = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            temperature=None,
            top_k=None,
            top_p=None,
            repetition_penalty=1.0,
            max_new_tokens=count,
            eos_token_id=None,
            pad_token_id=0,
        )
    return logits, generated[0, len(ids) :].tolist()


def ours(folder: Path, ids: list[int], count: int) -> tuple[np.ndarray, list[int]]:
    """Return the same, computed by metal-gen."""
    loaded = metal_gen.load(folder, model_dtype="float32", max_seq_len=len(ids) + count)
    model, cache = loaded.decoder.model, loaded.decoder.cache
    logits = np.array(model.logits(model(mx.array([ids]), cache))[0])
    cache.clear()
    row = loaded.decoder.prefill(ids)
    greedy = []
    for _ in range(count):
        token = mx.argmax(row, axis=-1)
        greedy.append(int(np.array(token)[0]))
        if len(greedy) < count:
            row = loaded.decoder.step(token)
    return logits, greedy


def main() -> int:
    """Compare, print, and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", help="folder or Hub id")
    parser.add_argument("--prompt", default=PROMPT)
    parser.add_argument("--tokens", type=int, default=64, help="greedy tokens to compare")
    arguments = parser.parse_args()

    folder = locate_checkpoint(arguments.checkpoint)
    checkpoint = Checkpoint(folder)
    ids = encode_prompt(checkpoint, arguments.prompt).ids
    expected, expected_ids = reference(folder, ids, arguments.tokens)
    logits, greedy = ours(folder, ids, arguments.tokens)

    difference = float(np.abs(logits - expected).max() / np.abs(expected).max())
    same = sum(a == b for a, b in zip(greedy, expected_ids, strict=True))
    print(f"logits of {len(ids)} prompt tokens: largest difference {difference:.1e} of the largest logit")
    print(f"greedy ids: {same} of {arguments.tokens} equal")
    return 0 if difference <= TOLERANCE and same == arguments.tokens else 1


if __name__ == "__main__":
    sys.exit(main())
