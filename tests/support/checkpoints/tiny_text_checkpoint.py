"""Writes tiny checkpoints that read and write text: one token per byte, and a known answer.

With `says`, the model has no layers that do anything: the embedding is one-hot, and the head maps each
token to the one that follows it. The same text comes whatever the seed and the prompt.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from tiny_checkpoint import tensor_shapes, tiny_config, write_checkpoint
from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from metal_gen.text.tokenization.byte_level import ALPHABET

IM_START, IM_END, THINK, END_THINK, CALL, END_CALL = range(256, 262)
SPECIAL_TOKENS = ("<|im_start|>", "<|im_end|>")
TEXT_TOKENS = ("<think>", "</think>")
CALL_TOKENS = ("<tool_call>", "</tool_call>")
TEXT_VOCAB = 272
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}<|im_start|>assistant\n"
)
# A repeated text; a text said once, and its form on a terminal; a template that refuses and quotes.
CYCLE = b"abcdefgh\n"
SAID = "[red] aé\x1b(31m\x07\n!"
SAID_LINE = f"{SAID}\n".encode()
SHOWN = "[red] aé\u241b(31m\u2407\n!"
ECHO_TEMPLATE = "{{ raise_exception('PROMPT ' + messages[-1].content | tojson) }}"


def byte_tokenizer(*, has_tags: bool = True, has_calls: bool = False) -> Tokenizer:
    """Return a byte-level BPE without merges: token 65 is the byte 65, and added tokens start at 256."""
    tokenizer = Tokenizer(BPE(vocab=dict(ALPHABET), merges=[]))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = ByteLevelDecoder()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL_TOKENS])
    if has_tags:
        tokenizer.add_tokens([AddedToken(token, special=False) for token in TEXT_TOKENS])
    if has_calls:
        tokenizer.add_tokens([AddedToken(token, special=False) for token in CALL_TOKENS])
    return tokenizer


def write_text_checkpoint(
    folder: Path,
    *,
    says: list[int] | bytes | None = None,
    forever: bool = False,
    chat_template: str | None = CHATML,
    has_tags: bool = True,
    has_calls: bool = False,
    **config_changes: Any,
) -> Path:
    """Write a checkpoint with a tokenizer and, unless it is None, a chat template.

    Args:
        folder: Made if need be.
        says: The tokens that the model always answers with, each at most once; None: random weights.
        forever: Say them again and again, rather than once.
        chat_template: Jinja.
        has_tags: The tags of thinking are tokens; else a token is a letter of one.
        has_calls: Whether the tags of calls of functions are tokens.
        config_changes: Fields of config.json.
    """
    if says is None:
        config, weights = tiny_config(**{"vocab_size": TEXT_VOCAB, **config_changes}), None
    else:
        config = tiny_config(vocab_size=TEXT_VOCAB, hidden_size=TEXT_VOCAB, **config_changes)
        weights = scripted_weights(config, list(says), forever=forever)
    write_checkpoint(folder, config, weights)
    byte_tokenizer(has_tags=has_tags, has_calls=has_calls).save(str(folder / "tokenizer.json"))
    tokenizer_config = {"eos_token": "<|im_end|>"}
    if chat_template is not None:
        tokenizer_config["chat_template"] = chat_template
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))
    return folder


def remove_bytes(folder: Path, missing: bytes) -> None:
    """Take the tokens of some bytes out of a checkpoint's tokenizer."""
    path = folder / "tokenizer.json"
    document = json.loads(path.read_text())
    vocabulary = document["model"]["vocab"]
    document["model"]["vocab"] = {text: token for text, token in vocabulary.items() if token not in missing}
    path.write_text(json.dumps(document))


def replace_letter(folder: Path, letter: str, text: str) -> None:
    """Give the token of a letter a longer text in a checkpoint's tokenizer."""
    path = folder / "tokenizer.json"
    document = json.loads(path.read_text())
    document["model"]["vocab"][text] = document["model"]["vocab"].pop(letter)
    path.write_text(json.dumps(document))


def scripted_weights(config: dict[str, Any], tokens: list[int], *, forever: bool) -> dict[str, np.ndarray]:
    """Return weights of a model that says the next token after each of these, and the first after others."""
    assert len(set(tokens)) == len(tokens), "a token cannot have two successors"
    weights = {
        name: np.zeros(shape, dtype=np.float32)
        if name.endswith("_proj.weight")
        else np.ones(shape, np.float32)
        for name, shape in tensor_shapes(config).items()
    }
    following = dict.fromkeys(range(TEXT_VOCAB), tokens[0])
    following.update(zip(tokens, [*tokens[1:], tokens[0] if forever else IM_END], strict=True))
    head = np.zeros((TEXT_VOCAB, TEXT_VOCAB), dtype=np.float32)
    for token, successor in following.items():
        head[successor, token] = 10.0
    weights["model.embed_tokens.weight"] = np.eye(TEXT_VOCAB, dtype=np.float32)
    weights["lm_head.weight"] = head
    return weights
