"""Tests that stop strings are found in any pieces of a text, and that nothing else is lost."""

import random
import tracemalloc
from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metal_gen.text.stop_strings import StopMatcher

# Few characters, of 1 to 4 bytes, so that stop strings occur, overlap and begin without completing.
LETTERS = "abé€🦊"
TEXTS = st.text(alphabet="ab", max_size=24) | st.text(alphabet=LETTERS, max_size=16)
STOPS = st.lists(
    st.text(alphabet="ab", min_size=1, max_size=5) | st.text(alphabet=LETTERS, min_size=1, max_size=4)
)
# Overlapping stop strings: the text, the stop strings, the text let through, and the one that matched.
OVERLAPS = [
    ("aaab", ["aab"], "a", "aab"),
    ("aaaab", ["aab", "aaab"], "a", "aaab"),
    ("xabcx", ["ab", "abc"], "x", "ab"),
    ("xabcx", ["abc", "ab"], "x", "ab"),
    ("xabcx", ["abc", "bc", "c"], "x", "abc"),
    ("xabcx", ["c", "bc", "abc"], "x", "abc"),
    ("xabcx", ["abcd", "bc"], "xa", "bc"),
    ("xabcx", ["abcd", "bcd", "cx"], "xab", "cx"),
    ("xabcx", ["abcxy", "b"], "xa", "b"),
    ("ababac", ["abac"], "ab", "abac"),
    ("abababc", ["ababc", "abac"], "ab", "ababc"),
    ("aabaabaaa", ["aabaaa"], "aab", "aabaaa"),
    ("xaabx", ["ab", "ab"], "xa", "ab"),
    ("aaa", ["a", "aa", "aaa"], "", "a"),
    ("abc", ["a"], "", "a"),
    ("abc", ["c"], "ab", "c"),
    ("abc", ["abc"], "", "abc"),
    ("abc", ["abcd"], "abc", None),
    ("abc", ["zabc"], "abc", None),
    ("abc", ["C", "cb", "ac"], "abc", None),
    ("é", ["e", "\u0301"], "é", None),
    ("", ["a"], "", None),
    ("a\r\nb", ["\n"], "a\r", "\n"),
    ("a\0b", ["\0"], "a", "\0"),
]


def reference(text, stops):
    """Search the whole text: the stop string that ends first counts, then the one that begins first."""
    found = [(text.find(stop) + len(stop), text.find(stop), stop) for stop in stops if stop in text]
    if not found:
        return text, None
    _, begin, stop = min(found)
    return text[:begin], stop


def could_begin(text, stops):
    """Return the length of the longest end of a text that is an incomplete stop string."""
    return max(
        (length for stop in stops for length in range(1, len(stop)) if text.endswith(stop[:length])),
        default=0,
    )


def match(pieces, stops):
    """Feed pieces up to the first stop string, then add the held-back text."""
    matcher, released = StopMatcher(stops), ""
    for piece in pieces:
        text, stop = matcher.feed(piece)
        released += text
        if stop is not None:
            return released + matcher.finish(), stop
    return released + matcher.finish(), None


def cut(text, places):
    return [text[begin:end] for begin, end in pairwise([0, *sorted(places), len(text)])]


def every_split(text):
    places = range(1, len(text))
    for count in range(len(text)):
        for chosen in combinations(places, count):
            yield cut(text, chosen)


@settings(max_examples=500)
@given(text=TEXTS, stops=STOPS, data=st.data())
def test_any_split_equals_a_search_of_the_whole_text(text, stops, data):
    places = data.draw(st.lists(st.integers(0, len(text)), max_size=12))
    assert match(cut(text, places), stops) == reference(text, stops)


@settings(max_examples=300)
@given(text=TEXTS, stops=STOPS, data=st.data())
def test_only_possible_stop_strings_are_held_back(text, stops, data):
    places = data.draw(st.lists(st.integers(0, len(text)), max_size=12))
    let_through, _ = reference(text, stops)
    matcher, fed, released = StopMatcher(stops), "", ""
    for piece in cut(text, places):
        fed += piece
        part, stop = matcher.feed(piece)
        released += part
        if stop is not None:
            break
        assert len(released) == len(fed) - could_begin(fed, stops)
        assert let_through.startswith(released)
    else:
        assert released + matcher.finish() == text


@settings(max_examples=100)
@given(text=st.text(alphabet="ab", max_size=8), stops=STOPS)
def test_every_split_of_a_text_gives_the_same(text, stops):
    expected = reference(text, stops)
    assert all(match(split, stops) == expected for split in every_split(text))


@settings(max_examples=200)
@given(text=st.text(max_size=20), data=st.data())
def test_any_part_of_any_text_stops_it(text, data):
    begin = data.draw(st.integers(0, max(len(text) - 1, 0)))
    stop = text[begin : data.draw(st.integers(begin + 1, begin + 6))] or "x"
    assert match(list(text), [stop]) == reference(text, [stop])


@pytest.mark.parametrize(("text", "stops", "let_through", "stop"), OVERLAPS)
def test_overlaps_at_every_split(text, stops, let_through, stop):
    assert reference(text, stops) == (let_through, stop)
    for split in every_split(text) if text else [[], [""]]:
        assert match(split, stops) == (let_through, stop), split


def test_the_order_of_stop_strings_does_not_matter():
    stops = ["abc", "bc", "ab", "b"]
    texts = ["xabc", "xbc", "aab", "cab"]
    for text in texts:
        assert match([text], stops) == match([text], stops[::-1]) == reference(text, stops)


def test_without_stop_strings_everything_passes_at_once():
    matcher = StopMatcher([])
    assert [matcher.feed(piece) for piece in ("ab", "", "🦊")] == [("ab", None), ("", None), ("🦊", None)]
    assert matcher.finish() == ""


def test_held_back_text_comes_as_soon_as_it_cannot_match():
    matcher = StopMatcher(["stop!"])
    assert [matcher.feed(piece)[0] for piece in ("go s", "to", "p", "?", "sto")] == [
        "go ",
        "",
        "",
        "stop?",
        "",
    ]
    assert matcher.finish() == "sto"
    assert matcher.finish() == ""


def test_text_after_the_stop_string_is_dropped():
    matcher = StopMatcher(["b"])
    assert matcher.feed("abab") == ("a", "b")
    assert matcher.finish() == ""


def test_the_largest_number_of_stop_strings_works():
    stream = random.Random(0)
    stops = ["".join(stream.choices("abcdefgh", k=stream.randint(8, 24))) for _ in range(4096)]
    text = "".join(stream.choices("abcdefgh", k=4000))
    assert reference(text, stops) == (text, None)
    assert match(list(text), stops) == (text, None)
    ended = text + stops[4095] + text
    assert match(list(ended), stops) == reference(ended, stops)


@pytest.mark.parametrize("stop", ["a" * 1000 + "b", "ab" * 500 + "b"], ids=["a", "ab"])
def test_a_long_stop_string_that_begins_again_and_again(stop):
    text = stop[:-1] * 2 + "x" + stop[:-1] + stop
    assert match(list(text), [stop]) == reference(text, [stop])


def test_a_long_stop_string_takes_memory_in_proportion():
    tracemalloc.start()
    matcher = StopMatcher(["x" * 4000])
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert matcher.feed("x") == ("", None)
    assert peak_bytes < 1_000_000
