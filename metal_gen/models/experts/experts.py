"""Mixture of experts: a router chooses a few of many MLPs for each token.

One array holds the matrices of all experts, and a product picks the ones it needs. There is no loop over
experts, and shapes do not depend on the choice.

Source: arXiv 2101.03961; `modeling_qwen2_moe.py` and `modeling_qwen3_moe.py` of Hugging Face transformers.

Axes: R rows, E experts, K chosen experts of a row.
"""

from dataclasses import dataclass

import mlx.core as mx

from metal_gen.models.experts.groups import Groups, group_rows
from metal_gen.models.experts.linear import ExpertLinear
from metal_gen.models.layers import GatedMLP, Linear, gated


@dataclass(frozen=True)
class SharedExpert:
    """An MLP that every token goes through, weighted by its own gate."""

    gate: Linear
    mlp: GatedMLP

    def __call__(self, rows: mx.array) -> mx.array:
        """Map (R, hidden) to (R, hidden)."""
        return mx.sigmoid(self.gate(rows)) * self.mlp(rows)


@dataclass(frozen=True)
class Experts:
    """The weighted sum of a few experts, in place of a layer's MLP.

    Args:
        router: Scores the experts, (E, hidden).
        gate_up: Gate and up projections of all experts.
        down: Down projections of all experts.
        per_token: K.
        normalized: Whether the weights of the chosen experts are scaled to add up to 1.
        shared: Expert that is added for every token.
        apart: Compute every row separately, so that no row depends on the others.
    """

    router: Linear
    gate_up: ExpertLinear
    down: ExpertLinear
    per_token: int
    normalized: bool
    shared: SharedExpert | None = None
    apart: bool = False

    def __call__(self, rows: mx.array) -> mx.array:
        """Map (R, hidden) to (R, hidden)."""
        weights, chosen = self._route(rows)
        groups = None if self.apart else group_rows(chosen, self.router.weight.shape[0])
        outputs = self._each(rows, chosen) if groups is None else self._grouped(rows, groups)
        mixed = (outputs * weights[..., None]).sum(axis=1)
        return mixed if self.shared is None else mixed + self.shared(rows)

    def _route(self, rows: mx.array) -> tuple[mx.array, mx.array]:
        """Return each row's experts and their weights, (R, K). Probabilities are computed in float32."""
        probabilities = mx.softmax(self.router(rows).astype(mx.float32), axis=-1)
        chosen = mx.argpartition(probabilities, -self.per_token, axis=-1)[:, -self.per_token :]
        weights = mx.take_along_axis(probabilities, chosen, axis=-1)
        if self.normalized:
            weights = weights / weights.sum(axis=-1, keepdims=True)
        return weights.astype(rows.dtype), chosen

    def _each(self, rows: mx.array, chosen: mx.array) -> mx.array:
        return self.down.each(gated(self.gate_up.each(rows[:, None], chosen)), chosen)

    def _grouped(self, rows: mx.array, groups: Groups) -> mx.array:
        inner = gated(self.gate_up.grouped(rows[groups.rows], groups.experts))
        return self.down.grouped(inner, groups.experts).flatten(0, 1)[groups.places]
