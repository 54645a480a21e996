"""Ways to damage a checkpoint's folder, with the expected message for each."""

import json
import struct

from tiny_checkpoint import tiny_weights, write_checkpoint

HUGE = "1" + "0" * 400


def with_config(**changes):
    """Change fields of config.json; None removes one."""

    def change(folder):
        path = folder / "config.json"
        config = {**json.loads(path.read_text()), **changes}
        path.write_text(json.dumps({name: value for name, value in config.items() if value is not None}))

    return change


def with_file(name, contents):
    data = contents if isinstance(contents, bytes) else json.dumps(contents).encode()
    return lambda folder: (folder / name).write_bytes(data)


def without(name):
    return lambda folder: (folder / name).unlink()


def with_template(source):
    return with_file("tokenizer_config.json", {"chat_template": source})


def with_weights(change):
    """Change the dictionary of tensors."""

    def rewrite(folder):
        config = json.loads((folder / "config.json").read_text())
        weights = tiny_weights(config)
        change(weights)
        write_checkpoint(folder, config, weights)

    return rewrite


def with_header(change):
    """Change the parsed header of the weights, but not the tensors' bytes."""

    def rewrite(folder):
        path = folder / "model.safetensors"
        data = path.read_bytes()
        (size,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + size])
        change(header)
        new = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(new)) + new + data[8 + size :])

    return rewrite


def cut_weights(size):
    def cut(folder):
        path = folder / "model.safetensors"
        path.write_bytes(path.read_bytes()[:size])

    return cut


def lose_a_shard(*, with_index):
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]

    def lose(folder):
        (folder / "model.safetensors").rename(folder / names[0])
        if with_index:
            index = {"weight_map": {"a": names[0], "b": names[1]}}
            with_file("model.safetensors.index.json", index)(folder)

    return lose


def with_tokenizer(change):
    def rewrite(folder):
        tokenizer = json.loads((folder / "tokenizer.json").read_text())
        change(tokenizer)
        with_file("tokenizer.json", tokenizer)(folder)

    return rewrite


def a_thousand_more_tokens(tokenizer):
    vocab = tokenizer["model"]["vocab"]
    vocab.update({f"extra{number}": 300 + number for number in range(1000)})


NORM = "model.norm.weight"
YARN = {"rope_type": "yarn", "factor": 4.0}
AGAIN = "download or copy the file again"
INCOMPLETE = "the checkpoint is incomplete, or its config.json belongs to another model"
WITHOUT_TEMPLATE = "use --raw to skip the chat template"

FOLDERS = {
    "no config": (without("config.json"), "it has no config.json", "a folder in Hugging Face's layout"),
    "no tokenizer": (without("tokenizer.json"), "has no tokenizer.json", "save_pretrained"),
    "no weights": (
        without("model.safetensors"),
        "has no weights: model.safetensors is missing",
        "only safetensors are supported",
    ),
    "weights cut": (cut_weights(5000), "model.safetensors is damaged: its header describes", AGAIN),
    "header cut": (cut_weights(50), "model.safetensors is damaged: it has no safetensors header", AGAIN),
    "weights empty": (cut_weights(0), "model.safetensors is damaged", AGAIN),
    "weights garbage": (
        with_file("model.safetensors", bytes(range(256)) * 40),
        "model.safetensors is damaged",
        AGAIN,
    ),
    "weights a pointer": (
        with_file("model.safetensors", b"version https://git-lfs.github.com/spec/v1\n"),
        "model.safetensors is damaged",
        AGAIN,
    ),
    "shard missing": (
        lose_a_shard(with_index=True),
        "weight files: model-00002-of-00002",
        "copy them",
    ),
    "shard missing, no index": (
        lose_a_shard(with_index=False),
        "weight files: model-00002-of-00002",
        "copy them",
    ),
    "config garbage": (with_file("config.json", b"{nope"), "config.json is not JSON", AGAIN),
    "config empty": (with_file("config.json", b""), "config.json is not JSON", AGAIN),
    "config a list": (with_file("config.json", [1]), "config.json must hold a JSON object, not list", ""),
    "no hidden_size": (with_config(hidden_size=None), "cannot be used: hidden_size is missing", ""),
    "hidden_size a text": (
        with_config(hidden_size="32"),
        "hidden_size must be a whole number of at least 1, not '32'",
        "",
    ),
    "no model_type": (with_config(model_type=None), "config.json cannot be used: model_type is missing", ""),
    "model_type llama": (
        with_config(model_type="llama"),
        "this model is not supported: model_type is 'llama'",
        "supported are qwen2, ",
    ),
    "quantized": (
        with_config(quantization_config={"quant_method": "hqq"}),
        "quant_method is 'hqq', and only awq, gptq, auto-round, fp8 and compressed-tensors are supported",
        "use the checkpoint's MLX version (mlx-community has many), or one in bfloat16",
    ),
    "hidden_act": (with_config(hidden_act="gelu"), "hidden_act is 'gelu', and only 'silu' is supported", ""),
    "heads": (with_config(num_key_value_heads=3), "4 query heads cannot share 3 key/value heads", ""),
    "rope_type": (
        with_config(rope_scaling={"rope_type": "longrope"}),
        "rope_type 'longrope' is not supported",
        "default, linear, dynamic, yarn are",
    ),
    "tensor misshapen": (
        with_weights(lambda weights: weights.update({NORM: weights[NORM][:-1]})),
        f"{NORM} in model.safetensors is 31, but config.json requires 32",
        INCOMPLETE,
    ),
    "tensor missing": (with_weights(lambda weights: weights.pop(NORM)), f"{NORM} is missing", INCOMPLETE),
    "tensor left over": (
        with_weights(lambda weights: weights.update(extra=weights[NORM])),
        "extra in model.safetensors has no place in the model",
        INCOMPLETE,
    ),
    "tensor of whole numbers": (
        with_weights(lambda weights: weights.update({NORM: weights[NORM].astype("int32")})),
        f"{NORM} in model.safetensors is stored as I32",
        INCOMPLETE,
    ),
    "tokenizer garbage": (with_file("tokenizer.json", b"\0\1"), "tokenizer.json is not JSON", AGAIN),
    "tokenizer of another version": (
        with_tokenizer(lambda tokenizer: tokenizer.update(version="9")),
        "tokenizer.json cannot be used as a tokenizer",
        AGAIN,
    ),
    "tokenizer with an unknown part": (
        with_tokenizer(lambda tokenizer: tokenizer.update(pre_tokenizer={"type": "Nonsense"})),
        "tokenizer.json cannot be used as a tokenizer",
        AGAIN,
    ),
    "tokenizer with a nameless token": (
        with_tokenizer(lambda tokenizer: tokenizer["added_tokens"][0].update(content=7)),
        "tokenizer.json cannot be used as a tokenizer",
        AGAIN,
    ),
    "tokenizer of something else": (
        with_file("tokenizer.json", b'{"version": "1.0"}'),
        "tokenizer.json cannot be used as a tokenizer",
        AGAIN,
    ),
    "tokenizer of words": (
        with_tokenizer(lambda tokenizer: tokenizer.update(decoder=None)),
        "is not byte-level BPE",
        "",
    ),
    "tokenizer too large": (
        with_tokenizer(a_thousand_more_tokens),
        "has 1,000 token ids, up to 1299, that are not in the model's vocabulary, which ends at 271",
        "the tokenizer belongs to another model",
    ),
    "tokenizer_config garbage": (
        with_file("tokenizer_config.json", b"zz"),
        "tokenizer_config.json is not JSON",
        AGAIN,
    ),
    "template raises": (
        with_template("{{ raise_exception('only in rhyme') }}"),
        "the chat template refused the messages: only in rhyme",
        WITHOUT_TEMPLATE,
    ),
    "template divides": (with_template("{{ 1 / 0 }}"), "refused the messages: division", WITHOUT_TEMPLATE),
    "template breaks out": (
        with_template("{{ ''.__class__.__mro__ }}"),
        "the chat template refused the messages",
        WITHOUT_TEMPLATE,
    ),
    "template invalid": (with_template("{% for %}"), "the chat template is not valid", WITHOUT_TEMPLATE),
    "generation_config temperature": (
        with_file("generation_config.json", {"do_sample": True, "temperature": -1}),
        "generation_config.json: temperature must be a number of at least 0 and at most 1000, not -1",
        "replace it with --temperature",
    ),
    "generation_config a list": (
        with_file("generation_config.json", []),
        "generation_config.json must hold a JSON object, not list",
        "",
    ),
}
# Rare damage, by name: how to do it, and what the message must name.
RARE_FOLDERS = {
    "config deep": (with_file("config.json", b"[" * 100_000), "config.json"),
    "hidden_size huge": (with_config(hidden_size=10**18), "hidden_size"),
    "rope_theta huge": (with_config(rope_theta=int(HUGE)), "config.json is JSON with a number of"),
    "yarn length a text": (
        with_config(rope_scaling={**YARN, "original_max_position_embeddings": "abc"}),
        "original_max_position_embeddings",
    ),
    "yarn length below 0": (
        with_config(rope_scaling={**YARN, "original_max_position_embeddings": -5}),
        "original_max_position_embeddings",
    ),
    "yarn length 0": (
        with_config(original_max_position_embeddings=0, rope_scaling=YARN),
        "original_max_position_embeddings",
    ),
    "rms_norm_eps infinite": (
        with_config(rms_norm_eps=float("inf")),
        "config.json is not JSON: Infinity is not a number",
    ),
    "offsets texts": (
        with_header(lambda header: header[NORM].update(data_offsets=["a", "b"])),
        "model.safetensors",
    ),
    "frequencies of a dtype MLX lacks": (
        with_weights(
            lambda weights: weights.update(
                {"model.layers.0.self_attn.rotary_emb.inv_freq": weights[NORM].astype("float64")}
            )
        ),
        "rotary_emb.inv_freq",
    ),
    "template gives half a character": (
        with_template(r"{{ '\ud800' }}"),
        "chat template",
    ),
    "template refuses in two lines": (
        with_template(r"{{ raise_exception('a\nb') }}"),
        "chat template",
    ),
    "generation_config temperature huge": (
        with_file("generation_config.json", {"do_sample": True, "temperature": int(HUGE)}),
        "generation_config.json",
    ),
    "generation_config penalty a text": (
        with_file("generation_config.json", {"repetition_penalty": "much"}),
        "repetition_penalty",
    ),
    "token id beyond the vocabulary": (
        with_tokenizer(lambda tokenizer: tokenizer["model"]["vocab"].update(h=5000)),
        "tokenizer.json",
    ),
}
