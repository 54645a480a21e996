"""Builds the decoder that all families have in common, from Hugging Face's tensor names."""

import mlx.core as mx

from metal_gen.models.attention import Attention, HeadNorm
from metal_gen.models.config import ModelConfig
from metal_gen.models.delta_net_weights import has_norms_around_zero, read_delta_net
from metal_gen.models.expert_weights import read_expert_weights
from metal_gen.models.experts import Experts, SharedExpert
from metal_gen.models.layers import GatedMLP, Linear, RMSNorm
from metal_gen.models.parameters import ParameterSource
from metal_gen.models.rope import Rope
from metal_gen.models.transformer import MLP, DecoderLayer, Mixer, Transformer


def assemble(
    config: ModelConfig, source: ParameterSource, *, qkv_bias: bool, output_bias: bool, qk_norm: bool
) -> Transformer:
    """Build a model whose layers are attention and a gated MLP, or a mixture of experts.

    Args:
        config: Sizes.
        source: Gives the weights.
        qkv_bias: Query, key and value projections have a bias.
        output_bias: The attention's output projection has a bias.
        qk_norm: Queries and keys are normalised per head before they are rotated.
    """
    linear_sizes, around_zero = config.linear, has_norms_around_zero(config, source)
    rope = Rope(config.rope, config.head_dim)
    embedding = source.tensor("model.embed_tokens.weight", config.vocab_size, config.hidden_size)
    head = embedding
    if not config.tie_word_embeddings:
        head = source.tensor("lm_head.weight", config.vocab_size, config.hidden_size)

    def norm(name: str, size: int) -> RMSNorm:
        return RMSNorm(source.tensor(f"{name}.weight", size), config.rms_norm_eps, around_zero)

    def linear(outputs: dict[str, int], inputs: int, bias: bool = False) -> Linear:
        """One product for all of these projections."""
        weight = source.stack({f"{name}.weight": rows for name, rows in outputs.items()}, inputs)
        offset: mx.array | None = None
        if bias:
            offset = source.stack({f"{name}.bias": rows for name, rows in outputs.items()})
        return Linear(weight, offset)

    def head_norm(prefix: str) -> HeadNorm:
        return HeadNorm(
            query_weight=source.tensor(f"{prefix}.q_norm.weight", config.head_dim),
            key_weight=source.tensor(f"{prefix}.k_norm.weight", config.head_dim),
            num_heads=config.num_attention_heads,
            num_kv_heads=config.num_key_value_heads,
            eps=config.rms_norm_eps,
            around_zero=around_zero,
        )

    def attention(prefix: str, kind: str) -> Attention:
        query_size = config.num_attention_heads * config.head_dim
        is_gated = linear_sizes is not None
        kv_size = config.num_key_value_heads * config.head_dim
        projections = {
            f"{prefix}.q_proj": 2 * query_size if is_gated else query_size,
            f"{prefix}.k_proj": kv_size,
            f"{prefix}.v_proj": kv_size,
        }
        return Attention(
            qkv=linear(projections, config.hidden_size, qkv_bias),
            output=linear({f"{prefix}.o_proj": config.hidden_size}, query_size, output_bias),
            rope=rope,
            num_heads=config.num_attention_heads,
            num_kv_heads=config.num_key_value_heads,
            head_dim=config.head_dim,
            sliding=kind == "sliding_attention",
            head_norm=head_norm(prefix) if qk_norm else None,
            gated=is_gated,
        )

    def mixer(prefix: str, kind: str) -> Mixer:
        if linear_sizes is not None and kind == "linear_attention":
            return read_delta_net(source, f"{prefix}.linear_attn", linear_sizes, config)
        return attention(f"{prefix}.self_attn", kind)

    def gated_mlp(prefix: str, size: int) -> GatedMLP:
        gate_up = {f"{prefix}.gate_proj": size, f"{prefix}.up_proj": size}
        return GatedMLP(
            gate_up=linear(gate_up, config.hidden_size),
            down=linear({f"{prefix}.down_proj": config.hidden_size}, size),
        )

    def mlp(prefix: str, index: int) -> MLP:
        experts = config.experts
        if experts is None or not experts.are_in(index):
            return gated_mlp(prefix, config.intermediate_size)
        shared = None
        if size := experts.shared_expert_intermediate_size:
            shared = SharedExpert(
                gate=linear({f"{prefix}.shared_expert_gate": 1}, config.hidden_size),
                mlp=gated_mlp(f"{prefix}.shared_expert", size),
            )
        gate_up, down = read_expert_weights(source, prefix, experts, config.hidden_size)
        return Experts(
            router=linear({f"{prefix}.gate": experts.num_experts}, config.hidden_size),
            gate_up=gate_up,
            down=down,
            per_token=experts.num_experts_per_tok,
            normalised=experts.norm_topk_prob,
            shared=shared,
        )

    def layer(index: int, kind: str) -> DecoderLayer:
        prefix = f"model.layers.{index}"
        return DecoderLayer(
            attention_norm=norm(f"{prefix}.input_layernorm", config.hidden_size),
            attention=mixer(prefix, kind),
            mlp_norm=norm(f"{prefix}.post_attention_layernorm", config.hidden_size),
            mlp=mlp(f"{prefix}.mlp", index),
        )

    return Transformer(
        config=config,
        embedding=embedding,
        rope=rope,
        layers=tuple(layer(index, kind) for index, kind in enumerate(config.layer_types)),
        norm=norm("model.norm", config.hidden_size),
        head=Linear(head),
    )
