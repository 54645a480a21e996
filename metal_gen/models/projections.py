"""The projections of a model: finds them, and puts others in their place."""

from collections.abc import Callable
from dataclasses import replace

from metal_gen.models.attention import Attention
from metal_gen.models.experts.experts import Experts, SharedExpert
from metal_gen.models.layers import GatedMLP, Linear
from metal_gen.models.linear_attention.gated_delta_net import GatedDeltaNet
from metal_gen.models.transformer import MLP, DecoderLayer, Mixer, Transformer

Change = Callable[[Linear], Linear]


def with_projections(model: Transformer, change: Change) -> Transformer:
    """Return the model with each projection changed; it shares the weights of the given one.

    The projections of chosen experts stay, since they are not `Linear`.
    """
    layers = tuple(layer_with_projections(layer, change) for layer in model.layers)
    return replace(model, layers=layers, head=change(model.head))


def layer_with_projections(layer: DecoderLayer, change: Change) -> DecoderLayer:
    """Return the layer with each projection changed."""
    return replace(layer, attention=_mixer(layer.attention, change), mlp=_mlp(layer.mlp, change))


def projections(model: Transformer) -> list[Linear]:
    """Return the projections of all layers and the head."""
    found: list[Linear] = []

    def note(linear: Linear) -> Linear:
        found.append(linear)
        return linear

    with_projections(model, note)
    return found


def _mixer(mixer: Mixer, change: Change) -> Mixer:
    if isinstance(mixer, GatedDeltaNet):
        return replace(mixer, inputs=change(mixer.inputs), output=change(mixer.output))
    assert isinstance(mixer, Attention)
    return replace(mixer, qkv=change(mixer.qkv), output=change(mixer.output))


def _mlp(mlp: MLP, change: Change) -> MLP:
    if isinstance(mlp, Experts):
        shared = mlp.shared
        if shared is not None:
            shared = SharedExpert(gate=change(shared.gate), mlp=_gated(shared.mlp, change))
        return replace(mlp, router=change(mlp.router), shared=shared)
    assert isinstance(mlp, GatedMLP)
    return _gated(mlp, change)


def _gated(mlp: GatedMLP, change: Change) -> GatedMLP:
    return GatedMLP(gate_up=change(mlp.gate_up), down=change(mlp.down))
