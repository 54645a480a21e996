#!/usr/bin/env python3
"""Writes tests/data/golden_scores.json: perplexities and choices as transformers computes them.

Run it from the root of the repository, with torch and transformers installed:

    python scripts/make_score_goldens.py

For each kind of model it has the loss of a text at once and in windows, as "Perplexity of fixed-length
models" in the documentation of transformers computes it, and the log-probability of each choice after a
prompt, in float32. A token is a byte. For a reranker it has the scores of documents, as the model card of
Qwen/Qwen3-Reranker-0.6B computes them.
"""

import json
import sys
import tempfile
from pathlib import Path

import torch
import transformers

ROOT = Path(__file__).resolve().parent.parent
SUPPORT = ROOT / "tests" / "support"
sys.path[:0] = [str(ROOT), str(SUPPORT), str(SUPPORT / "checkpoints")]

from scored_texts import (  # noqa: E402
    CHOICES,
    CONFIGS,
    DOCUMENTS,
    INSTRUCTION,
    PROMPT,
    QUERY,
    STRIDE,
    TEXT,
    WINDOW,
    write_reranker,
)
from tiny_text_checkpoint import write_text_checkpoint  # noqa: E402

UNSCORED = -100


def loss(model: torch.nn.Module, ids: list[int], scored: int) -> float:
    """Return the sum of the losses of the last `scored` tokens."""
    labels = [UNSCORED] * (len(ids) - scored) + ids[len(ids) - scored :]
    with torch.no_grad():
        mean: float = model(torch.tensor([ids]), labels=torch.tensor([labels])).loss.double().item()
    return mean * min(scored, len(ids) - 1)


def windowed_loss(model: torch.nn.Module, ids: list[int]) -> float:
    """Return the sum over windows: each scores what those before have not."""
    total, scored_until = 0.0, 0
    for begin in range(0, len(ids), STRIDE):
        end = min(begin + WINDOW, len(ids))
        total += loss(model, ids[begin:end], end - scored_until)
        scored_until = end
        if end == len(ids):
            break
    return total


def reranked(folder: Path) -> list[float]:
    """Return the score of each document; texts and steps are those of the model card."""
    prefix = (
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the "
        'Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
    )
    suffix = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    prefix_ids, suffix_ids = (tokenizer.encode(text, add_special_tokens=False) for text in (prefix, suffix))
    pairs = [f"<Instruct>: {INSTRUCTION}\n<Query>: {QUERY}\n<Document>: {each}" for each in DOCUMENTS]
    rows = [[*prefix_ids, *tokenizer(pair)["input_ids"], *suffix_ids] for pair in pairs]
    longest = max(map(len, rows))
    padded = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    with torch.no_grad():
        logits = model(padded, attention_mask=mask).logits[:, -1, :]
    answers = [tokenizer.convert_tokens_to_ids(answer) for answer in ("no", "yes")]
    scores: list[float] = torch.nn.functional.log_softmax(logits[:, answers], dim=1)[:, 1].exp().tolist()
    return scores


def main() -> None:
    """Compute every model and write the file."""
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    goldens = {}
    text, prompt = list(TEXT.encode()), list(PROMPT.encode())
    for name, changes in CONFIGS.items():
        with tempfile.TemporaryDirectory() as folder:
            write_text_checkpoint(Path(folder), **changes)
            kind = transformers.AutoModelForCausalLM
            model = kind.from_pretrained(folder, dtype=torch.float32).eval()
            goldens[name] = {
                "loss": loss(model, text, len(text)),
                "windowed_loss": windowed_loss(model, text),
                "choices": [-loss(model, [*prompt, *c.encode()], len(c.encode())) for c in CHOICES],
            }
    out = ROOT / "tests" / "data" / "golden_scores.json"
    versions = {"transformers": transformers.__version__, "torch": torch.__version__}
    with tempfile.TemporaryDirectory() as folder:
        scores = reranked(write_reranker(Path(folder)))
    goldens_and_versions = {"versions": versions, "models": goldens, "reranker": scores}
    out.write_text(json.dumps(goldens_and_versions, indent=1) + "\n")
    print(f"{out.relative_to(ROOT)}: {len(goldens)} models")


if __name__ == "__main__":
    main()
