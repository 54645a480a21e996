"""The texts and models whose scores are compared with transformers."""

from pathlib import Path
from typing import Any

from tiny_text_checkpoint import SPECIAL_TOKENS, TEXT_TOKENS, write_text_checkpoint
from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from metal_gen.text.tokenization.byte_level import ALPHABET

TEXT = (
    "A fox went out in the rain, and an owl saw it go.\n"
    "\u201cWhere to?\u201d asked the owl. \u201cTo the caf\u00e9,\u201d said the fox, and went on.\n"
    "Then it was dark \U0001f319, and nobody saw anything any more. "
) * 2
PROMPT = "The fox went to the caf\u00e9. The owl stayed in the wood, and so the one who got wet is the "
CHOICES = ["fox", "owl", " fox", "wood and the rain", "\u00e9", "x"]
QUERY, INSTRUCTION = "Who got wet?", "Find the sentence that answers the question"
DOCUMENTS = [
    "A fox went out in the rain.",
    "An owl",
    " yes and no\n",
    "caf\u00e9 \U0001f319",
    "It was dark. " * 8,
]
WINDOW, STRIDE = 128, 40
# By name, the changes to the configuration of `write_text_checkpoint`.
CONFIGS: dict[str, dict[str, Any]] = {
    "qwen2": {"arch": "qwen2"},
    "qwen3": {"arch": "qwen3"},
    "qwen3-sliding": {
        **{"arch": "qwen3", "use_sliding_window": True},
        **{"sliding_window": 32, "max_window_layers": 1},
    },
    "qwen2_moe": {"arch": "qwen2_moe"},
    "qwen3_moe": {"arch": "qwen3_moe", "norm_topk_prob": True},
    "qwen3_next": {"arch": "qwen3_next", "partial_rotary_factor": 0.25},
    "qwen3_5_text": {
        **{"arch": "qwen3_5_text", "partial_rotary_factor": 0.25},
        "layer_types": ["linear_attention"] * 3 + ["full_attention"],
    },
}
for changes in CONFIGS.values():
    changes["max_position_embeddings"] = 512


def write_reranker(folder: Path) -> Path:
    """Write a checkpoint with random weights whose vocabulary has yes and no, as a reranker's has."""
    write_text_checkpoint(folder, chat_template=None, **CONFIGS["qwen3"])
    words = [*SPECIAL_TOKENS, *TEXT_TOKENS, "ye", "yes", "no"]
    vocab = {**ALPHABET, **{word: len(ALPHABET) + place for place, word in enumerate(words)}}
    tokenizer = Tokenizer(BPE(vocab=vocab, merges=[("y", "e"), ("ye", "s"), ("n", "o")]))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = ByteLevelDecoder()
    tokenizer.add_special_tokens([AddedToken(word, special=True) for word in SPECIAL_TOKENS])
    tokenizer.add_tokens([AddedToken(word, special=False) for word in TEXT_TOKENS])
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder
