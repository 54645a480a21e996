"""The names and shapes of a checkpoint's tensors, which the builder of the model asks for."""

import mlx.core as mx

from metal_gen.models.assembly import assemble_mtp
from metal_gen.models.config.model_config import ModelConfig
from metal_gen.models.matrices.matrix import DenseMatrix
from metal_gen.models.matrices.parameters import Shape
from metal_gen.models.registry import builder_for
from scripts.random_checkpoint.shapes import Config

# The family whose published checkpoints have one tensor for all experts of a layer.
STACKS_EXPERTS = "qwen3_5_moe"


def tensor_shapes(config: Config) -> dict[str, Shape]:
    """Return the shape of each tensor of a published checkpoint, by its name in a text model.

    Args:
        config: Contents of config.json.
    """
    model = ModelConfig.from_hf(config)
    names = Names(stacks_experts=model.model_type == STACKS_EXPERTS)
    builder_for(model.model_type)(model, names)
    if model.linear is not None:
        assemble_mtp(model, names, around_zero=True)
    return names.shapes


def stored_name(name: str, config: Config) -> str:
    """Return the name that a tensor of the text model has in the checkpoint."""
    is_nested = "text_config" in config and name.startswith("model.")
    return f"model.language_model.{name.removeprefix('model.')}" if is_nested else name


class Names:
    """A `ParameterSource` that notes the names and shapes, and answers with unevaluated zeros.

    Args:
        stacks_experts: Whether one tensor holds the experts of a layer, rather than a few for each of them.

    Attributes:
        shapes: Shape of each tensor by its name, in the order of the requests.
    """

    def __init__(self, *, stacks_experts: bool) -> None:
        self.shapes: dict[str, Shape] = {}
        self._stacks_experts = stacks_experts

    def shape_of(self, name: str) -> Shape | None:
        """Return None, which means the published layout, but for stacked experts an empty shape."""
        return () if self._stacks_experts and name.endswith(".experts.gate_up_proj") else None

    def tensor(self, name: str, *shape: int) -> mx.array:
        """Note one tensor."""
        self.shapes[name] = shape
        return mx.zeros(shape)

    def vector(self, sizes: dict[str, int]) -> mx.array:
        """Note each part."""
        self.shapes.update({name: (size,) for name, size in sizes.items()})
        return mx.zeros(sum(sizes.values()))

    def matrix(self, rows: dict[str, int], *columns: int, axis: int = 0) -> DenseMatrix:
        """Note each part."""
        for name, count in rows.items():
            self.shapes[f"{name}.weight"] = (*columns[:axis], count, *columns[axis:])
        return DenseMatrix(mx.zeros((*columns[:axis], sum(rows.values()), *columns[axis:])))

    def one_by_one(self, rows: dict[str, int], inputs: int, *, experts: int) -> DenseMatrix:
        """Note the matrix of each expert."""
        self.matrix(rows, inputs)
        return DenseMatrix(mx.zeros((experts, sum(rows.values()) // experts, inputs)))

    def experts(self, name: str, *shape: int, is_turned: bool) -> DenseMatrix:
        """Note the tensor of all experts."""
        self.shapes[name] = shape
        return DenseMatrix(mx.zeros(shape))
