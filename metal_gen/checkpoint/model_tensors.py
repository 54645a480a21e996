"""Maps a checkpoint's tensors to those of the model, and checks that there are enough of them.

The counts of config.json are compared with the files here, before anything is listed for each of them.
"""

from collections.abc import Callable, Mapping
from typing import TypeVar

from metal_gen.errors import CheckpointError
from metal_gen.excerpt import excerpt
from metal_gen.models.config.language_part import WITH_OTHER_PARTS, model_name
from metal_gen.models.config.model_config import ModelConfig
from metal_gen.models.experts.weights import stacks_experts
from metal_gen.models.matrices.parameters import Shape

EMBEDDING, HEAD = "model.embed_tokens", "lm_head"

Named = TypeVar("Named")


def named_as_in_model(stored: Mapping[str, Named], config: ModelConfig, source: object) -> dict[str, Named]:
    """Return the tensors or modules of the language part, by the names of a text model.

    Args:
        stored: Tensors or modules by their names in the file.
        config: Configuration of the model.
        source: Name of the file in error messages.

    Raises:
        CheckpointError: Two of them have the same name in the model.
    """
    has_other_parts = config.model_type in WITH_OTHER_PARTS
    named: dict[str, Named] = {}
    sources: dict[str, str] = {}
    for name, value in stored.items():
        plain = model_name(name, has_other_parts=has_other_parts)
        if plain is None:
            continue
        if plain in named:
            raise CheckpointError(
                f"{source} cannot be used: {excerpt(sources[plain])} and {excerpt(name)} "
                "are the same part of the model"
            )
        named[plain], sources[plain] = value, name
    return named


def with_embedding(named: dict[str, Named], config: ModelConfig) -> dict[str, Named]:
    """Return the tensors, with a tied embedding and head that are stored once under the embedding's name."""
    if not config.tie_word_embeddings or any(name.startswith(f"{EMBEDDING}.") for name in named):
        return named
    head = f"{HEAD}."
    return {
        f"{EMBEDDING}.{name.removeprefix(head)}" if name.startswith(head) else name: value
        for name, value in named.items()
    }


def miscount(config: ModelConfig, count: int, shape_of: Callable[[str], Shape | None]) -> str | None:
    """Describe why there are too few tensors for the layers and experts. Return None if there are enough.

    Args:
        config: Configuration of the model.
        count: Number of tensors.
        shape_of: Returns the shape of a tensor, or None if there is none.
    """
    layers, experts = config.num_hidden_layers, config.experts
    if layers > count:
        return f"{count} tensors are too few for {layers} layers"
    if experts is None:
        return None
    with_each = [
        layer
        for layer in range(layers)
        if experts.are_in(layer) and not stacks_experts(shape_of, f"model.layers.{layer}.mlp")
    ]
    if len(with_each) * experts.num_experts <= count:
        return None
    return f"{count} tensors are too few for {experts.num_experts} experts in each of {len(with_each)} layers"
