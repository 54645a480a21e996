"""Tests that results of a row do not depend on the other rows, whatever kernels a BLAS uses."""

from dataclasses import dataclass
from functools import partial

import mlx.core as mx
import pytest
from on_device import cpu_only

from metal_gen.device.backend import on_cpu
from metal_gen.models.layers import Linear
from metal_gen.models.matrices.matrix import DenseMatrix
from metal_gen.models.rows.independence import SteadyLinear, rows_computed, with_independent_rows
from metal_gen.models.rows.rules import RowRule, outcomes_of, rule_together

pytestmark = pytest.mark.metal
pytest_plugins = ("fixtures_cli", "fixtures_text")


@dataclass(frozen=True)
class Product:
    """A matrix whose product with each row is computed by one of several kernels, which round differently."""

    numbers: mx.array
    kernels: object

    shape = property(lambda self: self.numbers.shape)
    dtype = property(lambda self: self.numbers.dtype)
    arrays = property(lambda self: [self.numbers])

    def of(self, arrays):
        return Product(*arrays, self.kernels)

    def times(self, rows, bias=None):
        kernels = mx.array([self.kernels(place, len(rows)) for place in range(len(rows))])
        return rows @ self.numbers.T + kernels[:, None] * 1e-3


def alike(place, count):
    return 0


def other_for_few(place, count, few):
    return int(count < few)


def other_at_the_edge(place, count, tile):
    return int(place >= count // tile * tile)


def alike_up_to_a_dozen(place, count):
    if count <= 12:
        return 0
    return 1 if count == 16 else 2 + place % 4


def alike_alone(place, count):
    return place


@pytest.mark.parametrize(
    ("kernels", "rule"),
    [
        (alike, RowRule()),
        (partial(other_for_few, few=3), RowRule(fewest=3)),
        (partial(other_for_few, few=32), RowRule(fewest=32)),
        (partial(other_for_few, few=40), RowRule(block=16)),
        (partial(other_at_the_edge, tile=8), RowRule(multiple=8)),
        (partial(other_at_the_edge, tile=2), RowRule(multiple=2)),
        (alike_up_to_a_dozen, RowRule(block=16)),
        (alike_alone, RowRule(block=1)),
    ],
)
@on_cpu()  # A GPU's own kernels for the products differ too.
def test_a_rule_that_holds_is_found(kernels, rule):
    product = Product(mx.random.normal((600, 16), key=mx.random.key(1)), kernels)
    found = rule_together([outcomes_of(product)])
    assert found == rule
    steady = SteadyLinear(product, None, found)
    rows = mx.random.normal((70, 16), key=mx.random.key(2))
    alone = mx.concatenate([steady(rows[place : place + 1]) for place in range(70)])
    for begin, end in [(0, 2), (0, 7), (1, 8), (0, 12), (3, 20), (0, 31), (2, 42), (0, 64), (0, 70)]:
        together = steady(rows[begin:end])
        assert together.shape == (end - begin, 600)
        # Not to the last bit, because this machine computes the products itself.
        assert mx.allclose(together, alone[begin:end], atol=1e-4, rtol=0).item()


@on_cpu()
def test_a_shared_rule_holds_for_every_matrix():
    few, edge = (
        Product(mx.random.normal((600, 16)), kernels)
        for kernels in (partial(other_for_few, few=12), partial(other_at_the_edge, tile=8))
    )
    assert rule_together([outcomes_of(few), outcomes_of(edge)]) == RowRule(multiple=16)
    assert rule_together([outcomes_of(edge), outcomes_of(edge)]) == RowRule(multiple=8)


def test_few_numbers_do_not_agree_by_chance():
    """A product with one number per row, which kernels often round alike."""

    def rounded(rows, numbers):
        return mx.round((rows @ numbers.T) * 4) / 4

    class Narrow(Product):
        def times(self, rows, bias=None):
            exact = rounded(rows, self.numbers)
            other = rounded(rows, self.numbers + 0.01)
            is_few = mx.array([self.kernels(place, len(rows)) for place in range(len(rows))])[:, None]
            return mx.where(is_few == 1, other, exact)

    product = Narrow(mx.random.normal((1, 16), key=mx.random.key(3)), partial(other_for_few, few=5))
    assert rule_together([outcomes_of(product)]) == RowRule(fewest=5)


@pytest.mark.parametrize(
    ("rule", "sizes"),
    [
        (RowRule(), {1: [1], 9: [9]}),
        (RowRule(fewest=3), {1: [3], 3: [3], 9: [9]}),
        (RowRule(multiple=8), {1: [8], 8: [8], 9: [16]}),
        (RowRule(block=16), {1: [16], 16: [16], 17: [16, 16]}),
    ],
)
def test_few_additional_rows_are_computed(rule, sizes):
    assert {count: rule.sizes(count) for count in sizes} == sizes


@cpu_only
@pytest.mark.parametrize(("out", "width"), [(768, 256), (256, 512), (1408, 256), (1024, 1024)])
def test_rows_of_a_product_do_not_depend_on_their_number_or_places(out, width):
    matrix = DenseMatrix(mx.random.normal((out, width), key=mx.random.key(1)))
    steady = SteadyLinear(matrix, None, rule_together([outcomes_of(matrix)]))
    rows = mx.random.normal((40, width), key=mx.random.key(2))
    whole = steady(rows)
    for begin in (0, 1, 7):
        for end in range(begin + 1, 40, 3):
            assert mx.array_equal(steady(rows[begin:end]), whole[begin:end]).item()


def test_rows_computed_is_the_largest_padded_count(tiny_model):
    head = SteadyLinear(tiny_model.head.weight, None, RowRule(multiple=8))
    layer = tiny_model.layers[0]
    steady = type(tiny_model)(
        **{**{name: getattr(tiny_model, name) for name in tiny_model.__dataclass_fields__}, "head": head}
    )
    assert [rows_computed(steady, count) for count in (1, 8, 9)] == [8, 8, 16]
    assert isinstance(layer.attention.qkv, Linear)
    assert rows_computed(tiny_model, 5) == 5
    assert rows_computed(with_independent_rows(tiny_model), 40) >= 40


@cpu_only
def test_a_batch_reports_how_many_rows_it_computes(run_here, gambler, tmp_path, monkeypatch):
    rule = RowRule(multiple=8)
    monkeypatch.setattr("metal_gen.models.rows.independence.rule_together", lambda tried: rule)
    (tmp_path / "in.jsonl").write_text('{"id": 1, "prompt": "hi"}\n', encoding="utf-8")
    arguments = ("batch", "in.jsonl", "-o", "out.jsonl", "--model", gambler, "-n", 2, "--batch-size", 3)
    outcome = run_here(*arguments, "-v")
    assert outcome.code == 0, outcome.stderr
    assert (
        "rows computed for a token of each of 3 texts: 8 (the results of fewer would depend" in outcome.stderr
    )
    rule = RowRule()
    outcome = run_here(*arguments, "-v", "--overwrite")
    assert "rows computed for a token of each of 3 texts: 3\n" in outcome.stderr
    assert "rows computed" not in run_here(*arguments, "--overwrite").stderr
