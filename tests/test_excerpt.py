"""Tests how much of a foreign text a message quotes."""

import pickle
import traceback

from hypothesis import given
from hypothesis import strategies as st

from metal_gen.errors import MOST_LETTERS, MetalGenError
from metal_gen.excerpt import excerpt, shortened


@given(st.text(max_size=300), st.integers(20, 200))
def test_it_is_the_text_or_its_two_ends(text, most):
    quoted = shortened(text, most)
    if len(text) <= most:
        assert quoted == text
    else:
        begin, end = quoted.split(" ... ")[0], quoted.split(" ... ")[-1]
        assert len(quoted) == most
        assert text.startswith(begin)
        assert text.endswith(end)


@given(st.text(alphabet="a\n\r\u00e9", max_size=300))
def test_a_quotation_is_a_part_of_a_line(text):
    assert "\n" not in excerpt(text)
    assert "\r" not in excerpt(text)
    assert len(excerpt(text)) <= 120


def test_what_python_cannot_write_is_quoted_too():
    nested = []
    for _ in range(100_000):
        nested = [nested]
    assert excerpt(nested) == "lists within lists"
    assert excerpt(10**5000) == "a number of thousands of digits"
    assert excerpt([1, "a"]) == "[1, 'a']"


def test_a_traceback_ends_with_the_hint():
    shown = traceback.format_exception(pickle.loads(pickle.dumps(MetalGenError("no tensor a", "run x"))))
    assert "".join(shown) == "metal_gen.errors.MetalGenError: no tensor a\nhint: run x\n"
    assert "hint" not in "".join(traceback.format_exception(MetalGenError("no tensor a")))


def test_no_error_is_longer_than_a_screen_or_forges_a_line():
    error = MetalGenError("m" * 10**6, "h" * 10**6)
    assert len(error.message) == len(error.hint) == len(str(error)) == MOST_LETTERS
    assert "\n" not in MetalGenError("no tensor a\nhint: run x", "\r").message
