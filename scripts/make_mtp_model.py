"""Trains tests/data/mtp_stories: a tiny hybrid with a layer for multi-token prediction, for tests.

The model has the architecture of Qwen3.5 and the bundled model's tokenizer, and learns from the same stories.
Run from the repository's root: `python -m scripts.make_mtp_model --out tests/data/mtp_stories`.
Needs torch, transformers and tokenizers; reads no data and downloads nothing.
"""

import argparse
import json
import os
import time
from pathlib import Path

import torch  # type: ignore[import-not-found,unused-ignore]
from safetensors.torch import save_file  # type: ignore[import-not-found,unused-ignore]
from tokenizers import Tokenizer
from torch import Tensor, nn  # type: ignore[import-not-found,unused-ignore]
from torch.nn.functional import cross_entropy  # type: ignore[import-not-found,unused-ignore]
from transformers import Qwen3_5ForCausalLM, Qwen3_5TextConfig
from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5DecoderLayer, Qwen3_5RMSNorm

from scripts.bundled_model.corpus import END_OF_TEXT, TURN_END, make_corpus
from scripts.bundled_model.train import (
    IGNORED_LABEL,
    Windows,
    choose_device,
    learning_rate,
    make_optimizer,
    pack_windows,
)

SEED = 19
# Share in the loss of each depth of prediction: the token after the next one, and the one after that.
WEIGHTS = (0.5, 0.25)
# The final norm's weights differ between numbers, as those of large models do.
SPREAD = 0.6
SIZES = {
    "vocab_size": 4096,
    "hidden_size": 128,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 16,
    "linear_conv_kernel_dim": 4,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
}
LAYER_TYPES = ["linear_attention", "linear_attention", "full_attention"]
ROPE = {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.25}


class Head(nn.Module):  # type: ignore[misc,unused-ignore]
    """The layers for multi-token prediction, by their names in a checkpoint."""

    def __init__(self, config: Qwen3_5TextConfig) -> None:
        super().__init__()
        hidden, eps = config.hidden_size, config.rms_norm_eps
        self.fc = nn.Linear(2 * hidden, hidden, bias=False)
        self.pre_fc_norm_embedding = Qwen3_5RMSNorm(hidden, eps)
        self.pre_fc_norm_hidden = Qwen3_5RMSNorm(hidden, eps)
        self.layers = nn.ModuleList([Qwen3_5DecoderLayer(config, LAYER_TYPES.index("full_attention"))])
        self.norm = Qwen3_5RMSNorm(hidden, eps)

    def forward(self, embedded: Tensor, hidden: Tensor, positions: tuple[Tensor, Tensor]) -> Tensor:
        """Return the states that predict one token further, (B, L, hidden)."""
        both = torch.cat([self.pre_fc_norm_embedding(embedded), self.pre_fc_norm_hidden(hidden)], dim=-1)
        return self.norm(self.layers[0](self.fc(both), position_embeddings=positions))


class Model(nn.Module):  # type: ignore[misc,unused-ignore]
    """A language model and its head for multi-token prediction."""

    def __init__(self, config: Qwen3_5TextConfig) -> None:
        super().__init__()
        self.language = Qwen3_5ForCausalLM(config)
        self.mtp = Head(config)
        for norm in (self.language.model.norm, self.mtp.norm):
            nn.init.uniform_(norm.weight, -SPREAD, SPREAD)
        nn.init.normal_(self.mtp.fc.weight, std=config.initializer_range)

    def forward(self, ids: Tensor, labels: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the loss, and the share of tokens that each depth predicts as the text has them."""
        base = self.language.model
        hidden = base(input_ids=ids, use_cache=False).last_hidden_state
        loss, right = self._loss(hidden[:, :-1], labels[:, 1:])
        rights = [right]
        for depth, weight in enumerate(WEIGHTS, 1):
            # State t has seen tokens up to t + depth - 1. It now sees the next and predicts the one after it.
            length = ids.shape[1] - depth
            hidden = hidden[:, :length]
            places = torch.arange(length, device=ids.device).expand(3, len(ids), -1)
            hidden = self.mtp(base.embed_tokens(ids[:, depth:]), hidden, base.rotary_emb(hidden, places))
            further, right = self._loss(hidden[:, :-1], labels[:, depth + 1 :])
            loss = loss + weight * further
            rights.append(right)
        return loss, rights

    def _loss(self, hidden: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        kept = labels != IGNORED_LABEL
        logits = self.language.lm_head(hidden[kept])
        right = (logits.argmax(-1) == labels[kept]).float().mean()
        return cross_entropy(logits.float(), labels[kept]), right


def parse_arguments() -> argparse.Namespace:
    """Parse the command line; the defaults make the test model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint")
    parser.add_argument("--documents", type=int, default=100_000, help="size of the corpus")
    parser.add_argument("--seconds", type=float, default=100, help="train for this long")
    parser.add_argument("--batch", type=int, default=96, help="windows per step")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="for making the corpus")
    return parser.parse_args()


def build_model(tokenizer: Tokenizer) -> Model:
    """Return an untrained model of about 950,000 parameters."""
    config = Qwen3_5TextConfig(
        **SIZES,
        layer_types=LAYER_TYPES,
        rope_parameters=ROPE,
        eos_token_id=tokenizer.token_to_id(TURN_END),
        attn_implementation="sdpa",
    )
    return Model(config)


def train(model: Model, windows: Windows, seconds: float, batch: int) -> None:
    """Train in place for so many seconds, over fresh shuffles of the windows."""
    device = windows.ids.device
    optimizer = make_optimizer(model)
    start, step, progress = time.monotonic(), 0, 0.0
    order = torch.empty(0, dtype=torch.int64)
    while progress < 1:
        if len(order) < batch:
            order = torch.randperm(len(windows.ids))
        rows, order = order[:batch].to(device), order[batch:]
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(progress)
        loss, rights = model(windows.ids[rows].long(), windows.labels[rows].long())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        if device.type == "cuda":
            torch.cuda.synchronize()
        passed = time.monotonic() - start
        progress = passed / seconds
        if step % 50 == 0 or progress >= 1:
            shares = "  ".join(f"{right.item():.3f}" for right in rights)
            print(f"step {step}  {progress:4.0%}  loss {loss.item():.3f}  right {shares}", flush=True)


def save_checkpoint(model: Model, tokenizer: Tokenizer, folder: Path) -> None:
    """Write config.json, generation_config.json and the weights in bfloat16, with the names of Qwen3.5."""
    folder.mkdir(parents=True, exist_ok=True)
    ends = [tokenizer.token_to_id(TURN_END), tokenizer.token_to_id(END_OF_TEXT)]
    config = {
        "architectures": ["Qwen3_5ForCausalLM"],
        "model_type": "qwen3_5_text",
        "dtype": "bfloat16",
        **SIZES,
        "layer_types": LAYER_TYPES,
        "rope_parameters": ROPE,
        "hidden_act": "silu",
        "eos_token_id": ends[0],
        "mtp_num_hidden_layers": 1,
        "mtp_use_dedicated_embeddings": False,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    sampling = {"do_sample": True, "temperature": 0.8, "top_p": 0.95, "eos_token_id": ends}
    (folder / "generation_config.json").write_text(json.dumps(sampling, indent=2) + "\n", encoding="utf-8")
    tensors = {f"mtp.{name}": value for name, value in model.mtp.state_dict().items()}
    for name, value in model.language.state_dict().items():
        if name != "lm_head.weight":  # tied
            tensors[name] = value
    weights = {name: value.to("cpu", torch.bfloat16).contiguous() for name, value in tensors.items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{folder}: {sum(value.numel() for value in weights.values()):,} parameters, {size:,} bytes")


def main() -> None:
    """Make the corpus and the model, and save the model."""
    arguments = parse_arguments()
    torch.manual_seed(SEED)
    torch.set_float32_matmul_precision("high")
    device = choose_device(arguments.device)
    start = time.monotonic()
    documents = list(make_corpus(arguments.documents, SEED, arguments.processes))
    tokenizer = Tokenizer.from_file("metal_gen/bundled/tokenizer.json")
    windows = pack_windows(tokenizer, documents, device)
    print(f"{len(windows.ids):,} windows after {time.monotonic() - start:.0f} s", flush=True)
    model = build_model(tokenizer).to(device)
    train(model, windows, arguments.seconds, arguments.batch)
    save_checkpoint(model, tokenizer, arguments.out)


if __name__ == "__main__":
    main()
