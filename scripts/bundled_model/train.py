"""Trains the bundled checkpoint: makes the corpus, the tokenizer and the model, and saves the folder.

Run from the repository's root: `python -m scripts.bundled_model.train --out metal_gen/bundled`.
Needs torch, transformers, tokenizers and jinja2; reads no data and downloads nothing.
"""

import argparse
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch  # type: ignore[import-not-found,unused-ignore]
from tokenizers import Tokenizer
from torch import Tensor  # type: ignore[import-not-found,unused-ignore]
from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM

from .bpe import CONTEXT, VOCAB_SIZE, save_tokenizer, train_tokenizer
from .corpus import DEFAULT_DOCUMENTS, DEFAULT_SEED, END_OF_TEXT, TURN_END, Document, make_corpus

TOKENIZER_DOCUMENTS = 40_000
PEAK_LEARNING_RATE = 3e-3
WARMUP = 0.02
ROPE_THETA = 10_000.0
IGNORED_LABEL = -100


@dataclass(frozen=True)
class Windows:
    """Training windows of whole documents, padded at the end.

    Args:
        ids: Token ids, (N, CONTEXT), int16, on the training device.
        labels: The same ids, with IGNORED_LABEL for prompts and padding.
    """

    ids: Tensor
    labels: Tensor


def parse_arguments() -> argparse.Namespace:
    """Parse the command line; the defaults make the bundled checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint")
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED)
    parser.add_argument("--documents", type=int, default=DEFAULT_DOCUMENTS, help="size of the corpus")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--minutes", type=float, help="train for this long instead of for --steps")
    parser.add_argument("--batch", type=int, default=128, help=f"windows of {CONTEXT} tokens per step")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="for making the corpus")
    return parser.parse_args()


def choose_device(name: str) -> torch.device:
    """Return the device with this name; for "auto", the fastest one available."""
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def pack_windows(tokenizer: Tokenizer, documents: list[Document], device: torch.device) -> Windows:
    """Encode the documents and pack whole ones into windows."""
    padding = tokenizer.token_to_id(END_OF_TEXT)
    rows: list[tuple[Tensor, Tensor]] = []
    ids: list[int] = []
    labels: list[int] = []

    def close() -> None:
        rest = CONTEXT - len(ids)
        window = torch.tensor(ids + [padding] * rest, dtype=torch.int16)
        rows.append((window, torch.tensor(labels + [IGNORED_LABEL] * rest, dtype=torch.int16)))
        ids.clear()
        labels.clear()

    for start in range(0, len(documents), 20_000):
        block = documents[start : start + 20_000]
        prompts = tokenizer.encode_batch_fast([document.prompt for document in block])
        answers = tokenizer.encode_batch_fast([document.answer for document in block])
        for prompt, answer in zip(prompts, answers, strict=True):
            length = min(len(prompt.ids) + len(answer.ids), CONTEXT)
            if len(ids) + length > CONTEXT:
                close()
            ids.extend((prompt.ids + answer.ids)[:length])
            labels.extend(([IGNORED_LABEL] * len(prompt.ids) + answer.ids)[:length])
    close()
    windows, targets = zip(*rows, strict=True)
    return Windows(torch.stack(windows).to(device), torch.stack(targets).to(device))


def build_model(tokenizer: Tokenizer) -> Qwen3ForCausalLM:
    """Return an untrained model of about 3.2 million parameters."""
    config = Qwen3Config(
        vocab_size=VOCAB_SIZE,
        hidden_size=192,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=32,
        intermediate_size=512,
        max_position_embeddings=CONTEXT,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.token_to_id(TURN_END),
        pad_token_id=tokenizer.token_to_id(END_OF_TEXT),
        use_cache=True,
    )
    config.rope_theta = ROPE_THETA  # for readers older than transformers 5
    return Qwen3ForCausalLM(config)


def learning_rate(progress: float) -> float:
    """Return the learning rate: linear warm-up, then half a cosine to zero; `progress` goes from 0 to 1."""
    if progress < WARMUP:
        return PEAK_LEARNING_RATE * progress / WARMUP
    return PEAK_LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * (progress - WARMUP) / (1 - WARMUP)))


def make_optimizer(model: Qwen3ForCausalLM) -> torch.optim.AdamW:
    """Return AdamW without weight decay for the norms' weights."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=PEAK_LEARNING_RATE, betas=(0.9, 0.95))


def train(model: Qwen3ForCausalLM, windows: Windows, arguments: argparse.Namespace) -> None:
    """Train in place for --steps or --minutes, over fresh shuffles of the windows."""
    device = windows.ids.device
    optimizer = make_optimizer(model)
    model.train()
    start = time.monotonic()
    step, progress, order = 0, 0.0, torch.empty(0, dtype=torch.int64)
    while progress < 1:
        if len(order) < arguments.batch:
            order = torch.randperm(len(windows.ids))
        rows, order = order[: arguments.batch].to(device), order[arguments.batch :]
        ids, labels = windows.ids[rows].long(), windows.labels[rows].long()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(progress)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        seconds = time.monotonic() - start
        progress = seconds / 60 / arguments.minutes if arguments.minutes else step / arguments.steps
        if step % 200 == 0 or progress >= 1:
            print(f"step {step}  {progress:4.0%}  loss {loss.item():.3f}  {seconds:.0f} s", flush=True)


def save_checkpoint(model: Qwen3ForCausalLM, tokenizer: Tokenizer, folder: Path) -> None:
    """Write the checkpoint in Hugging Face's layout, with weights rounded to bfloat16."""
    folder.mkdir(parents=True, exist_ok=True)
    ends = [tokenizer.token_to_id(TURN_END), tokenizer.token_to_id(END_OF_TEXT)]
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call,unused-ignore]
        do_sample=True, temperature=0.8, top_k=40, top_p=0.95, eos_token_id=ends, pad_token_id=ends[1]
    )
    model.to(torch.bfloat16).save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    save_tokenizer(tokenizer, folder)
    size = sum(path.stat().st_size for path in folder.iterdir())
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{folder}: {parameters:,} parameters, {size:,} bytes")


def main() -> None:
    """Make the corpus, the tokenizer and the model, and save them."""
    arguments = parse_arguments()
    torch.manual_seed(arguments.seed)
    device = choose_device(arguments.device)
    start = time.monotonic()
    corpus = make_corpus(arguments.documents, arguments.seed, arguments.processes)
    documents = list(corpus)
    print(f"{len(documents):,} documents after {time.monotonic() - start:.0f} s", flush=True)
    tokenizer = train_tokenizer(document.text for document in documents[:TOKENIZER_DOCUMENTS])
    windows = pack_windows(tokenizer, documents, device)
    seconds = time.monotonic() - start
    print(f"{len(windows.ids):,} windows of {CONTEXT} tokens after {seconds:.0f} s", flush=True)
    model = build_model(tokenizer).to(device)
    train(model, windows, arguments)
    save_checkpoint(model, tokenizer, arguments.out)


if __name__ == "__main__":
    main()
