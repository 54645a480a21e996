#!/usr/bin/env python3
"""Writes tests/data/adapters: adapters saved by PEFT, and the logits that transformers computes with them.

Run it from the repository's root, with torch, transformers and peft installed:

    python scripts/make_adapter_goldens.py

Each adapter is for a tiny checkpoint of tests/support/checkpoints/tiny_checkpoint.py; its trained weights are
random. The float32 logits of the prompt, (tokens, V), are in logits.safetensors, by the name of the adapter.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
import transformers
from safetensors.numpy import save_file

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "support" / "checkpoints"))

from tiny_checkpoint import PROMPT, tiny_config, write_checkpoint  # noqa: E402

FOLDER = ROOT / "tests" / "data" / "adapters"
# A name begins with the family.
ADAPTERS: dict[str, dict[str, Any]] = {
    "qwen3-all-linear": {
        "target_modules": "all-linear",
        "use_rslora": True,
        "rank_pattern": {"k_proj": 3, "layers.1.mlp.up_proj": 1},
        "alpha_pattern": {"v_proj": 5},
    },
    "qwen3-vocabulary": {"target_modules": ["embed_tokens", "lm_head", "o_proj"]},
    "qwen2-biases": {"target_modules": ["q_proj", "o_proj"], "bias": "all", "modules_to_save": ["norm"]},
    "qwen3_moe-attention": {"target_modules": ["q_proj", "o_proj"], "layers_to_transform": [1]},
}


def make(name: str, fields: dict[str, Any]) -> np.ndarray:
    """Write an adapter; return the prompt's logits with it."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as base:
        write_checkpoint(Path(base), tiny_config(name.partition("-")[0]))
        model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", r=2, lora_alpha=6, **fields))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn_like(parameter))
        logits: np.ndarray = model.eval()(torch.tensor([PROMPT])).logits[0].numpy()
    folder = FOLDER / name
    model.save_pretrained(folder)
    (folder / "README.md").unlink()
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = name.partition("-")[0]
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    return logits


def main() -> None:
    """Replace the folder."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    logits = {name: make(name, fields) for name, fields in ADAPTERS.items()}
    versions = {"peft": peft.__version__, "transformers": transformers.__version__}
    save_file(logits, FOLDER / "logits.safetensors", metadata=versions)


if __name__ == "__main__":
    main()
