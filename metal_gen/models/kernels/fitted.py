"""Puts kernels into a model, or keeps them out of it."""

from dataclasses import replace
from functools import partial

import mlx.core as mx

from metal_gen.device.device_memory import in_device_memory
from metal_gen.models.attention import Attention, HeadNorm
from metal_gen.models.kernels.chosen import ModelKernels
from metal_gen.models.kernels.next_attention import NextAttention, heads_of, score_factor
from metal_gen.models.layers import Linear
from metal_gen.models.linear_attention.gated_delta_net import GatedDeltaNet
from metal_gen.models.matrices.adapted import AdaptedMatrix, parts_of
from metal_gen.models.matrices.matrix import ArrayMatrix, JoinedMatrix, computed
from metal_gen.models.matrices.quantized import QuantizedMatrix
from metal_gen.models.mtp import MtpHeads
from metal_gen.models.projections import layer_with_projections, projections, with_projections
from metal_gen.models.transformer import DecoderLayer, Transformer


def has_head_norms(model: Transformer) -> bool:
    """Return whether queries and keys are normalized."""
    return any(
        isinstance(layer.attention, Attention) and layer.attention.head_norm is not None
        for layer in model.layers
    )


def fitted(model: Transformer, kernels: ModelKernels) -> Transformer:
    """Return the model with these kernels and no others; it shares the weights of the given one."""
    normed, adds = has_head_norms(model), kernels.residual_norms.by_kernel
    model = with_projections(model, partial(_with_products, by_kernel=kernels.quantized_products.by_kernel))

    def layer_of(layer: DecoderLayer) -> DecoderLayer:
        mixer = layer.attention
        if isinstance(mixer, GatedDeltaNet):
            mixer = replace(mixer, by_kernel=kernels.in_linear_attention)
        elif isinstance(mixer, Attention):
            kernel = _kernel_of(model, mixer, normed=normed) if kernels.attention.by_kernel else None
            mixer = replace(mixer, kernel=kernel)
        return _with_adds(replace(layer, attention=mixer), adds)

    norm = replace(model.norm, adds_by_kernel=adds)
    return replace(model, layers=tuple(map(layer_of, model.layers)), norm=norm)


def fitted_heads(heads: MtpHeads, model: Transformer) -> MtpHeads:
    """Return layers for multi-token prediction with the kernels that their model has."""
    attention = heads.layer.attention
    assert isinstance(attention, Attention)
    kernel = _kernel_of(model, attention, normed=has_head_norms(model))
    adds = model.norm.adds_by_kernel
    layer = _with_adds(replace(heads.layer, attention=replace(attention, kernel=kernel)), adds)
    change = partial(_with_products, by_kernel=_multiplies_by_kernel(model))
    return replace(
        heads,
        joining=change(heads.joining),
        layer=layer_with_projections(layer, change),
        norm=replace(heads.norm, adds_by_kernel=adds),
    )


def _multiplies_by_kernel(model: Transformer) -> bool:
    matrices = (part for linear in projections(model) for part in parts_of(linear.weight))
    return any(matrix.by_kernel for matrix in matrices if isinstance(matrix, QuantizedMatrix))


def _with_products(linear: Linear, *, by_kernel: bool) -> Linear:
    def fit(matrix: ArrayMatrix) -> ArrayMatrix:
        return replace(matrix, by_kernel=by_kernel) if isinstance(matrix, QuantizedMatrix) else matrix

    def fit_parts(matrix: ArrayMatrix | JoinedMatrix) -> ArrayMatrix | JoinedMatrix:
        if isinstance(matrix, JoinedMatrix):
            return replace(matrix, parts=tuple(map(fit, matrix.parts)))
        return fit(matrix)

    weight = linear.weight
    if isinstance(weight, AdaptedMatrix):
        return replace(linear, weight=replace(weight, base=fit_parts(weight.base)))
    return replace(linear, weight=fit_parts(weight))


def _with_adds(layer: DecoderLayer, adds: bool) -> DecoderLayer:
    return replace(
        layer,
        attention_norm=replace(layer.attention_norm, adds_by_kernel=adds),
        mlp_norm=replace(layer.mlp_norm, adds_by_kernel=adds),
    )


def _kernel_of(model: Transformer, attention: Attention, *, normed: bool) -> NextAttention:
    norm = attention.head_norm
    scale = attention.head_dim**-0.5 * attention.rope.score_factor
    factors = mx.array([0.0 if norm is None else norm.eps, score_factor(scale)])
    factors = computed(in_device_memory(factors))
    return NextAttention(
        heads_of(model.config, normed=normed, sliding=attention.sliding),
        (factors, factors) if norm is None else _weights(norm),
        factors,
    )


def _weights(norm: HeadNorm) -> tuple[mx.array, mx.array]:
    query, key = (computed(weight + int(norm.around_zero)) for weight in (norm.query_weight, norm.key_weight))
    return query, key
