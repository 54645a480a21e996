"""Builds the decoder that all families share, from Hugging Face's tensor names."""

from collections.abc import Mapping
from dataclasses import dataclass

from metal_gen.models.attention import Attention, HeadNorm
from metal_gen.models.config.experts import ExpertsConfig
from metal_gen.models.config.model_config import ModelConfig
from metal_gen.models.experts.experts import Experts, SharedExpert
from metal_gen.models.experts.weights import read_expert_weights
from metal_gen.models.layers import GatedMLP, Linear, RMSNorm
from metal_gen.models.linear_attention.weights import has_norms_around_zero, read_delta_net
from metal_gen.models.matrices.adapted import SingleMatrix
from metal_gen.models.matrices.matrix import JoinedMatrix
from metal_gen.models.matrices.parameters import ParameterSource
from metal_gen.models.mtp import MTP_JOINING, MtpHeads
from metal_gen.models.rope import Rope
from metal_gen.models.transformer import MLP, DecoderLayer, Mixer, Transformer


def assemble(
    config: ModelConfig, source: ParameterSource, *, qkv_bias: bool, output_bias: bool, qk_norm: bool
) -> Transformer:
    """Build a model whose layers have attention and either a gated MLP or a mixture of experts.

    Args:
        config: Sizes.
        source: Source of the weights.
        qkv_bias: Whether the query, key and value projections have a bias.
        output_bias: Whether the output projection of attention has a bias.
        qk_norm: Whether queries and keys are normalized per head before the rotation.
    """
    rope = Rope(config.rope, config.head_dim)
    around_zero = has_norms_around_zero(config, source)
    embedding = head = _vocabulary(source, "model.embed_tokens", config)
    if not config.tie_word_embeddings:
        head = _vocabulary(source, "lm_head", config)
    layers = _LayerAssembly(config, source, rope, around_zero, qkv_bias, output_bias, qk_norm)
    return Transformer(
        config=config,
        embedding=embedding,
        rope=rope,
        layers=tuple(
            layers.layer(f"model.layers.{index}", kind, has_experts=_has_experts(config, index))
            for index, kind in enumerate(config.layer_types)
        ),
        norm=layers.norm("model.norm"),
        head=Linear(head),
    )


def assemble_mtp(config: ModelConfig, source: ParameterSource, *, around_zero: bool) -> MtpHeads:
    """Build the layers for multi-token prediction of a model with linear attention.

    Args:
        config: Sizes of the model.
        source: Source of the tensors, whose names begin with `mtp.`.
        around_zero: Whether the weights of norms are stored minus 1.
    """
    bias, hidden = config.attention_bias, config.hidden_size
    rope = Rope(config.rope, config.head_dim)
    layers = _LayerAssembly(config, source, rope, around_zero, bias, bias, qk_norm=True)
    return MtpHeads(
        embedding_norm=layers.norm("mtp.pre_fc_norm_embedding"),
        hidden_norm=layers.norm("mtp.pre_fc_norm_hidden"),
        joining=Linear(source.matrix({MTP_JOINING: hidden}, 2 * hidden)),
        layer=layers.layer("mtp.layers.0", "full_attention", has_experts=config.experts is not None),
        norm=layers.norm("mtp.norm"),
        rope=rope,
    )


def _has_experts(config: ModelConfig, index: int) -> bool:
    return config.experts is not None and config.experts.are_in(index)


def _vocabulary(source: ParameterSource, name: str, config: ModelConfig) -> SingleMatrix:
    matrix = source.matrix({name: config.vocab_size}, config.hidden_size)
    assert not isinstance(matrix, JoinedMatrix)
    return matrix


@dataclass(frozen=True)
class _LayerAssembly:
    """Builds layers. The other fields are the arguments of `assemble`.

    Args:
        rope: Rotary embedding of all layers.
        around_zero: Whether the weights of norms are stored minus 1.
    """

    config: ModelConfig
    source: ParameterSource
    rope: Rope
    around_zero: bool
    qkv_bias: bool
    output_bias: bool
    qk_norm: bool

    def layer(self, prefix: str, kind: str, *, has_experts: bool) -> DecoderLayer:
        return DecoderLayer(
            attention_norm=self.norm(f"{prefix}.input_layernorm"),
            attention=self._mixer(prefix, kind),
            mlp_norm=self.norm(f"{prefix}.post_attention_layernorm"),
            mlp=self._mlp(f"{prefix}.mlp", has_experts=has_experts),
        )

    def norm(self, name: str) -> RMSNorm:
        weight = self.source.tensor(f"{name}.weight", self.config.hidden_size)
        return RMSNorm(weight, self.config.rms_norm_eps, self.around_zero)

    def _linear(self, outputs: Mapping[str, int], inputs: int, bias: bool = False) -> Linear:
        """Return one projection that computes all of these at once."""
        weight = self.source.matrix(dict(outputs), inputs)
        if not bias:
            return Linear(weight)
        return Linear(weight, self.source.vector({f"{name}.bias": rows for name, rows in outputs.items()}))

    def _mixer(self, prefix: str, kind: str) -> Mixer:
        linear = self.config.linear
        if linear is not None and kind == "linear_attention":
            return read_delta_net(self.source, f"{prefix}.linear_attn", linear, self.config)
        return self._attention(f"{prefix}.self_attn", kind)

    def _attention(self, prefix: str, kind: str) -> Attention:
        config = self.config
        query_size = config.num_attention_heads * config.head_dim
        is_gated = config.linear is not None
        kv_size = config.num_key_value_heads * config.head_dim
        projections = {
            f"{prefix}.q_proj": 2 * query_size if is_gated else query_size,
            f"{prefix}.k_proj": kv_size,
            f"{prefix}.v_proj": kv_size,
        }
        return Attention(
            qkv=self._linear(projections, config.hidden_size, self.qkv_bias),
            output=self._linear({f"{prefix}.o_proj": config.hidden_size}, query_size, self.output_bias),
            rope=self.rope,
            num_heads=config.num_attention_heads,
            num_kv_heads=config.num_key_value_heads,
            head_dim=config.head_dim,
            sliding=kind == "sliding_attention",
            head_norm=self._head_norm(prefix) if self.qk_norm else None,
            gated=is_gated,
        )

    def _head_norm(self, prefix: str) -> HeadNorm:
        config = self.config
        return HeadNorm(
            query_weight=self.source.tensor(f"{prefix}.q_norm.weight", config.head_dim),
            key_weight=self.source.tensor(f"{prefix}.k_norm.weight", config.head_dim),
            num_heads=config.num_attention_heads,
            num_kv_heads=config.num_key_value_heads,
            eps=config.rms_norm_eps,
            around_zero=self.around_zero,
        )

    def _mlp(self, prefix: str, *, has_experts: bool) -> MLP:
        experts = self.config.experts
        if experts is None or not has_experts:
            return self._gated_mlp(prefix, self.config.intermediate_size)
        return self._experts(prefix, experts)

    def _gated_mlp(self, prefix: str, size: int) -> GatedMLP:
        hidden = self.config.hidden_size
        return GatedMLP(
            gate_up=self._linear({f"{prefix}.gate_proj": size, f"{prefix}.up_proj": size}, hidden),
            down=self._linear({f"{prefix}.down_proj": hidden}, size),
        )

    def _experts(self, prefix: str, experts: ExpertsConfig) -> Experts:
        hidden = self.config.hidden_size
        shared = None
        if size := experts.shared_expert_intermediate_size:
            shared = SharedExpert(
                gate=self._linear({f"{prefix}.shared_expert_gate": 1}, hidden),
                mlp=self._gated_mlp(f"{prefix}.shared_expert", size),
            )
        gate_up, down = read_expert_weights(self.source, prefix, experts, hidden)
        return Experts(
            router=self._linear({f"{prefix}.gate": experts.num_experts}, hidden),
            gate_up=gate_up,
            down=down,
            per_token=experts.num_experts_per_tok,
            normalized=experts.norm_topk_prob,
            shared=shared,
        )
