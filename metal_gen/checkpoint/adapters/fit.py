"""Checks that adapters fit the model."""

from collections.abc import Iterator, Mapping, Sequence

from metal_gen.checkpoint.adapters.adapter import Adapter
from metal_gen.checkpoint.adapters.stored import StoredAdapted
from metal_gen.checkpoint.packed.quantizing import before_quantizing
from metal_gen.checkpoint.packed.stored import FLOATS, Expected, Stored, shown_problems, shown_shape
from metal_gen.errors import CheckpointError
from metal_gen.excerpt import excerpt
from metal_gen.files.safetensors_header import TensorInfo
from metal_gen.models.matrices.parameters import Shape

VOCABULARY = ("model.embed_tokens", "lm_head")
LISTED_PROBLEMS = 3
OF_ANOTHER_MODEL = "the adapter belongs to another model, or was trained on another layout of this one"
OF_MORE_TOKENS = (
    "tokens were added in training: merge the adapter, with peft's merge_and_unload, and save the model with "
    "its tokenizer"
)
OF_EXPERTS = "this checkpoint keeps its experts in another layout: fuse the adapter with mlx_lm.fuse"


def require_fit(
    adapters: Sequence[Adapter], parts: Sequence[Stored], expected: Mapping[str, Expected], *, tied: bool
) -> None:
    """Compare adapters with the model's weights, before anything is read.

    Args:
        adapters: Adapters with the model's names.
        parts: All weights of the model, adapted.
        expected: All tensors of the model.
        tied: Whether the head is the embedding.

    Raises:
        CheckpointError: Tensors have a wrong shape, have no place, or share a place; an adapter has no
            tensors; or it changes an embedding and a head separately that are one matrix here.
    """
    shapes = {
        low.down.key: form.shape
        for form in map(before_quantizing, parts)
        if isinstance(form, StoredAdapted)
        for low in form.low_ranks
    }
    for adapter in adapters:
        if not adapter.low_ranks and not adapter.whole:
            raise CheckpointError(
                f"{adapter.weights_file} has no tensors of this model's language part", OF_ANOTHER_MODEL
            )
        if tied and not adapter.moves_tied_head:
            _require_tied(adapter)
        if problems := [*_misfits(adapter, shapes), *_misplaced(adapter, expected)]:
            raise CheckpointError(
                f"the adapter {adapter.folder} does not fit the model: "
                + shown_problems(problems, LISTED_PROBLEMS),
                _what_to_do(adapter, shapes, expected),
            )
    _require_apart(adapters)


def _what_to_do(adapter: Adapter, shapes: Mapping[str, Shape], expected: Mapping[str, Expected]) -> str:
    placeless = [name for name, low in adapter.low_ranks.items() if low.down.key not in shapes]
    if any(".switch_mlp." in name for name in placeless):
        return OF_EXPERTS
    for name in VOCABULARY:
        info, place = adapter.whole.get(f"{name}.weight"), expected.get(f"{name}.weight")
        if info and place and info.shape[1:] == place.shape[1:] and info.shape[0] > place.shape[0]:
            return OF_MORE_TOKENS
    return OF_ANOTHER_MODEL


def _require_apart(adapters: Sequence[Adapter]) -> None:
    """Check that no two adapters replace the same tensor."""
    taken: dict[str, TensorInfo] = {}
    for adapter in adapters:
        for name, info in adapter.whole.items():
            if name in taken:
                raise CheckpointError(
                    f"{taken[name].path} and {info.path} both replace {excerpt(name)}",
                    "give one of them only",
                )
            taken[name] = info


def _require_tied(adapter: Adapter) -> None:
    named = {**{name: low.down.info for name, low in adapter.low_ranks.items()}, **adapter.whole}
    for name, info in named.items():
        if name.removesuffix(".weight") in VOCABULARY:
            raise CheckpointError(
                f"the adapter {adapter.folder} does not fit the model: {info.place} "
                "changes an embedding or a head, but here both are one matrix",
                "merge it first, with peft's merge_and_unload, and save the model with both",
            )


def _misfits(adapter: Adapter, shapes: Mapping[str, Shape]) -> Iterator[str]:
    """Yield the problems of low-rank factors."""
    for name, low in adapter.low_ranks.items():
        if low.down.key not in shapes:
            yield f"{low.down.info.place} has no place: there is no matrix {excerpt(name)}"
            continue
        for info, wanted in low.misfits(shapes[low.down.key]):
            yield (
                f"{info.place} is {shown_shape(info.shape)}, but {excerpt(name)} "
                f"at rank {low.rank} requires {shown_shape(wanted)}"
            )


def _misplaced(adapter: Adapter, expected: Mapping[str, Expected]) -> Iterator[str]:
    """Yield the problems of tensors that replace the model's own."""
    for name, info in adapter.whole.items():
        place = expected.get(name)
        if place is None:
            yield f"{info.place} has no place in the model"
        elif tuple(place.dtypes) != tuple(FLOATS):
            yield f"{info.place} cannot replace quantized numbers"
        elif info.shape != place.shape:
            yield (f"{info.place} is {shown_shape(info.shape)}, but the model has {shown_shape(place.shape)}")
