"""Rebuilds tokenizer.json and tokenizer_config.json from the tokenizer in a GGUF file.

Source: of https://github.com/ggml-org/llama.cpp, `convert_hf_to_gguf.py`, `gguf-py/gguf/constants.py` and
`src/llama-vocab.cpp`; the tokenizer.json of Qwen3.
"""

from collections.abc import Mapping
from typing import Any

from metal_gen.checkpoint.gguf.header import GgufHeader
from metal_gen.files.json_file import no_collection
from metal_gen.models.config.fields import FieldReader, quoted
from metal_gen.text.tokenizer import TokenizerDocument

PREFIX = "tokenizer.ggml"
MODEL = "gpt2"
# Values of `tokenizer.ggml.pre` for tokenizers whose texts llama.cpp splits like those of Qwen2.
LIKE_QWEN2 = ("qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez")
QWEN3_5 = "qwen35"
# Values of `tokenizer.ggml.token_type`. Tokens of other types fill up the embedding.
NORMAL, CONTROL, USER_DEFINED = 1, 3, 4
# Tokens that end a text, whether or not the metadata says so.
END_TOKENS = ("<|endoftext|>", "<|im_end|>")
# Control tokens, whatever type some converted files give them. Texts have no other use for them.
CONTROL_TOKENS = (*END_TOKENS, "<|im_start|>")
END_FIELDS = ("eos_token_id", "eot_token_id")
TEMPLATE = "tokenizer.chat_template"
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Marks, such as accents and vowel signs, count as letters.
WORDS_OF_QWEN3_5 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
FRAME: dict[str, Any] = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "normalizer": {"type": "NFC"},
    "post_processor": None,
    "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
}


def end_ids(metadata: Mapping[str, Any]) -> set[int]:
    """Return the ids of the tokens that end a text, as far as the file has them."""
    tokens, kinds = _list(metadata, "tokens"), _kinds(metadata)
    given = [metadata.get(f"{PREFIX}.{field}") for field in END_FIELDS]
    named = zip(range(len(tokens)), tokens, kinds, strict=False)
    by_text = {token for token, text, kind in named if kind == CONTROL and text in END_TOKENS}
    return by_text | {token for token in given if isinstance(token, int)}


def tokenizer_document(header: GgufHeader) -> TokenizerDocument:
    """Build the contents of both files.

    Raises:
        CheckpointError: The file has no tokenizer, one of another kind, or an invalid one.
    """
    metadata = header.metadata
    fields = header.fields
    for field, known in (("model", (MODEL,)), ("pre", (*LIKE_QWEN2, QWEN3_5, None))):
        if (found := metadata.get(f"{PREFIX}.{field}")) not in known:
            raise fields.error(
                f"{PREFIX}.{field} is {quoted(found)}, and only {known[0]!r} and equivalents are supported",
                "use the model's checkpoint in safetensors",
            )
    tokens, kinds, merges = _list(metadata, "tokens"), _kinds(metadata), _list(metadata, "merges")
    if not tokens or len(kinds) != len(tokens):
        raise fields.error(f"it has {len(tokens)} {PREFIX}.tokens and {len(kinds)} {PREFIX}.token_type")
    if {type(text) for text in (*tokens, *merges)} != {str}:
        raise fields.error(f"{PREFIX}.tokens and {PREFIX}.merges must be texts")
    with no_collection():
        pairs = [merge.split(" ") for merge in merges]
    if not set(map(len, pairs)) <= {2}:
        raise fields.error(f"{PREFIX}.merges must be pairs")
    added = [
        _added_token(token, text, kind)
        for token, (text, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind in (CONTROL, USER_DEFINED)
    ]
    normal = {text: index for index, text in enumerate(tokens) if kinds[index] == NORMAL}
    if not normal:
        raise fields.error(f"none of its {PREFIX}.tokens has a type for ordinary text")
    return TokenizerDocument(
        path=header.path,
        document={
            **FRAME,
            "pre_tokenizer": _splitting(metadata),
            "added_tokens": added,
            "post_processor": _beginning(fields, tokens),
            # With added tokens, or the library would number them itself.
            "model": _byte_pair_encoding(
                {**normal, **{entry["content"]: entry["id"] for entry in added}}, pairs
            ),
        },
        config={"chat_template": metadata.get(TEMPLATE)} | _special_tokens(metadata, tokens),
    )


def tokenizer_notices(header: GgufHeader) -> tuple[str, ...]:
    """Return notices to the user about the tokenizer."""
    if header.metadata.get(f"{PREFIX}.pre") is not None:
        return ()
    return (
        f"{header.path} does not say how its tokenizer splits words ({PREFIX}.pre), "
        "and it is assumed to be Qwen2's",
    )


def _beginning(fields: FieldReader, tokens: list[str]) -> dict[str, Any] | None:
    """Return a post-processor that puts a start token before raw texts, if the file asks for one."""
    if not fields.flag(f"{PREFIX}.add_bos_token", False):
        return None
    token = fields.integer(f"{PREFIX}.bos_token_id", minimum=0, maximum=len(tokens) - 1)
    name, text = tokens[token], {"Sequence": {"id": "A", "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": name, "type_id": 0}}, text],
        "pair": [text, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {name: {"id": name, "ids": [token], "tokens": [name]}},
    }


def _splitting(metadata: Mapping[str, Any]) -> dict[str, Any]:
    words = WORDS_OF_QWEN3_5 if metadata.get(f"{PREFIX}.pre") == QWEN3_5 else WORDS
    return {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": words}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
        ],
    }


def _byte_pair_encoding(vocabulary: dict[str, int], merges: list[list[str]]) -> dict[str, Any]:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": vocabulary,
        "merges": merges,
    }


def _added_token(token: int, text: str, kind: int) -> dict[str, Any]:
    return {
        "id": token,
        "content": text,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": kind == CONTROL,
    }


def _special_tokens(metadata: Mapping[str, Any], tokens: list[str]) -> dict[str, str]:
    """Return the texts of the tokens that tokenizer_config.json names."""
    ids = {
        "bos_token": metadata.get(f"{PREFIX}.bos_token_id"),
        "eos_token": metadata.get(f"{PREFIX}.eos_token_id"),
        "pad_token": metadata.get(f"{PREFIX}.padding_token_id"),
    }
    known = {name: token for name, token in ids.items() if isinstance(token, int)}
    return {name: tokens[token] for name, token in known.items() if 0 <= token < len(tokens)}


def _kinds(metadata: Mapping[str, Any]) -> list[Any]:
    """Return the types of the tokens, as many as the file has."""
    tokens, kinds = _list(metadata, "tokens"), list(_list(metadata, "token_type"))
    for text in CONTROL_TOKENS:
        if text in tokens and (token := tokens.index(text)) < len(kinds):
            kinds[token] = CONTROL
    return kinds


def _list(metadata: Mapping[str, Any], name: str) -> list[Any]:
    value = metadata.get(f"{PREFIX}.{name}")
    return value if isinstance(value, list) else []
