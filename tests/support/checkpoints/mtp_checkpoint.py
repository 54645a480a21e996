"""Tiny checkpoints with layers for multi-token prediction, and what NumPy computes with them."""

import numpy as np
from tiny_checkpoint import tiny_weights, write_checkpoint

MTP_SEED = 5


def mtp_weights(config, prefix="mtp."):
    """Return the layers for multi-token prediction: shaped like the last layer, which has full attention."""
    text = {**config, **config.get("text_config", {})}
    hidden, last = text["hidden_size"], f"layers.{text['num_hidden_layers'] - 1}."
    shapes = {f"{name}.weight": (hidden,) for name in ("norm", "pre_fc_norm_hidden", "pre_fc_norm_embedding")}
    shapes["fc.weight"] = (hidden, 2 * hidden)
    for name, array in tiny_weights(config).items():
        if last in name and "visual" not in name:
            shapes[f"layers.0.{name.partition(last)[2]}"] = array.shape
    random = np.random.RandomState(MTP_SEED)
    weights = {}
    for name, shape in shapes.items():
        values = random.standard_normal(shape)
        values = 0.3 * values if len(shape) == 1 else values / np.sqrt(shape[-1])
        weights[prefix + name] = values.astype(np.float32)
    return weights


def write_mtp_checkpoint(folder, config, prefix="mtp."):
    """Write a checkpoint with layers for multi-token prediction; return their weights."""
    heads = mtp_weights(config, prefix)
    write_checkpoint(folder, config, {**tiny_weights(config), **heads})
    return heads


def reference_states(config, weights, embedded, hidden):
    """Compute the states that the heads give for successive positions of a text, in float64.

    Args:
        config: Contents of config.json.
        weights: Weights, whose names begin with `mtp.`.
        embedded: Embedding of the token after each position, (L, hidden).
        hidden: State of each position, (L, hidden).
    """
    text = {**config, **config.get("text_config", {})}
    w = {name.removeprefix("mtp."): array.astype(np.float64) for name, array in weights.items()}

    def norm(x, name):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + text["rms_norm_eps"]) * (1 + w[f"{name}.weight"])

    joined = [norm(embedded, "pre_fc_norm_embedding"), norm(hidden, "pre_fc_norm_hidden")]
    rows = np.concatenate(joined, -1) @ w["fc.weight"].T
    rows = rows + _attention(text, w, norm, norm(rows, "layers.0.input_layernorm"))
    rows = rows + _mlp(text, w, norm(rows, "layers.0.post_attention_layernorm"))
    return norm(rows, "norm")


def _attention(text, w, norm, rows):
    heads, kv_heads, size = (
        text[name] for name in ("num_attention_heads", "num_key_value_heads", "head_dim")
    )
    length, place = len(rows), "layers.0.self_attn"
    both = (rows @ w[f"{place}.q_proj.weight"].T).reshape(length, heads, 2, size)
    keys = (rows @ w[f"{place}.k_proj.weight"].T).reshape(length, kv_heads, size)
    values = (rows @ w[f"{place}.v_proj.weight"].T).reshape(length, kv_heads, size)
    queries = _rotated(text, norm(both[:, :, 0], f"{place}.q_norm"))
    keys = _rotated(text, norm(keys, f"{place}.k_norm"))
    keys, values = (np.repeat(array, heads // kv_heads, 1) for array in (keys, values))
    scores = np.einsum("qhd,khd->hqk", queries, keys) / np.sqrt(size)
    scores = np.where(np.tri(length, dtype=bool), scores, -np.inf)
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    mixed = np.einsum("hqk,khd->qhd", shares / shares.sum(-1, keepdims=True), values)
    return (mixed * _sigmoid(both[:, :, 1])).reshape(length, -1) @ w[f"{place}.o_proj.weight"].T


def _rotated(text, heads):
    parameters = text.get("rope_parameters", text)
    size = int(heads.shape[-1] * parameters.get("partial_rotary_factor", 0.25))
    periods = parameters["rope_theta"] ** (np.arange(0, size, 2) / size)
    angles = (np.arange(len(heads))[:, None] / periods)[:, None]
    first, second = heads[..., : size // 2], heads[..., size // 2 : size]
    turned = [
        first * np.cos(angles) - second * np.sin(angles),
        second * np.cos(angles) + first * np.sin(angles),
    ]
    return np.concatenate([*turned, heads[..., size:]], -1)


def _mlp(text, w, rows, place="layers.0.mlp"):
    if f"{place}.gate_proj.weight" in w:
        gate, up, down = (w[f"{place}.{name}_proj.weight"] for name in ("gate", "up", "down"))
        gated = rows @ gate.T
        return (gated * _sigmoid(gated) * (rows @ up.T)) @ down.T
    shares = np.exp(rows @ w[f"{place}.gate.weight"].T)
    shares /= shares.sum(-1, keepdims=True)
    result = _sigmoid(rows @ w[f"{place}.shared_expert_gate.weight"].T) * _mlp(
        text, w, rows, f"{place}.shared_expert"
    )
    for row, share in enumerate(shares):
        chosen = np.argsort(-share)[: text["num_experts_per_tok"]]
        total = share[chosen].sum() if text.get("norm_topk_prob", True) else 1
        for expert in chosen:
            part = _mlp(text, w, rows[row : row + 1], f"{place}.experts.{expert}")
            result[row] += share[expert] / total * part[0]
    return result


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))
