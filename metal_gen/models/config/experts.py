"""Configuration of a mixture of experts: how many there are, how many per token, and in which layers."""

from collections.abc import Sequence
from dataclasses import dataclass

from metal_gen.models.config.fields import FieldReader, quoted

FAMILIES = frozenset({"qwen2_moe", "qwen3_moe", "qwen3_vl_moe", "qwen3_next", "qwen3_5_moe"})
WITH_SHARED_EXPERT = frozenset({"qwen2_moe", "qwen3_next", "qwen3_5_moe"})
ALWAYS_NORMALIZED = frozenset({"qwen3_vl_moe", "qwen3_5_moe"})
EXPERT_FIELDS = frozenset(
    """decoder_sparse_step mlp_only_layers moe_intermediate_size norm_topk_prob num_experts
    num_experts_per_tok num_local_experts output_router_logits router_aux_loss_coef
    shared_expert_intermediate_size""".split()
)


@dataclass(frozen=True, kw_only=True)
class ExpertsConfig:
    """The experts of a model, in Hugging Face's field names.

    Attributes:
        shared_expert_intermediate_size: Size of the MLP that every token also goes through; 0 for none.
        norm_topk_prob: Whether the weights of the chosen experts are scaled to add up to 1.
        decoder_sparse_step: Distance between layers with experts; 1 for all layers.
        mlp_only_layers: Indices of layers that have no experts, whatever the step.
    """

    num_experts: int
    num_experts_per_tok: int
    moe_intermediate_size: int
    shared_expert_intermediate_size: int = 0
    norm_topk_prob: bool = False
    decoder_sparse_step: int = 1
    mlp_only_layers: frozenset[int] = frozenset()

    def are_in(self, layer: int) -> bool:
        """Return whether a layer has experts. Layers without them have one MLP."""
        return layer not in self.mlp_only_layers and (layer + 1) % self.decoder_sparse_step == 0


def read_experts(config: FieldReader, model_type: str) -> ExpertsConfig | None:
    """Read the fields of a config.json that describe experts. Return None if the model has none.

    Raises:
        CheckpointError: A field is missing or wrong, or two contradict each other.
    """
    if model_type not in FAMILIES:
        return None
    count = config.integer("num_experts", config.fields.get("num_local_experts"), minimum=0)
    if (local := config.integer("num_local_experts", count, minimum=0)) != count:
        raise config.error(f"num_experts is {count} and num_local_experts {local}")
    if count == 0:
        return None
    per_token = config.integer("num_experts_per_tok")
    if per_token > count:
        raise config.error(f"num_experts_per_tok is {per_token} and there are {count} experts")
    return ExpertsConfig(
        num_experts=count,
        num_experts_per_tok=per_token,
        moe_intermediate_size=config.integer("moe_intermediate_size"),
        shared_expert_intermediate_size=(
            config.integer("shared_expert_intermediate_size") if model_type in WITH_SHARED_EXPERT else 0
        ),
        norm_topk_prob=(
            model_type in ALWAYS_NORMALIZED or config.flag("norm_topk_prob", model_type == "qwen3_next")
        ),
        decoder_sparse_step=config.integer("decoder_sparse_step", 1),
        mlp_only_layers=_layers(config),
    )


def _layers(config: FieldReader) -> frozenset[int]:
    layers = config.fields.get("mlp_only_layers") or ()
    if not isinstance(layers, Sequence) or not all(type(layer) is int for layer in layers):
        raise config.error(f"mlp_only_layers must be a list of whole numbers, not {quoted(layers)}")
    return frozenset(layers)
