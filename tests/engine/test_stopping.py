"""Tests why and where a text ends, on checkpoints whose answer is known."""

import json
import os
import shutil
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from cli_process import run_cli
from tiny_checkpoint import tensor_shapes, tiny_config, write_checkpoint
from tiny_text_checkpoint import (
    CYCLE,
    END_THINK,
    IM_END,
    SAID,
    SAID_LINE,
    THINK,
    byte_tokenizer,
    write_text_checkpoint,
)

import metal_gen
from metal_gen import FinishDetail, FinishReason
from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.errors import CheckpointError, UsageError
from metal_gen.models.layers import Linear
from metal_gen.models.matrices.matrix import DenseMatrix
from metal_gen.text.token_names import token_id
from metal_gen.text.tokenization.byte_level import ALPHABET
from metal_gen.text.tokenizer import Tokenizer

pytest_plugins = ("fixtures_text",)

REAL = os.environ.get("METAL_GEN_TEST_TOKENIZER")
LETTERS = "abcdefgh"
# Characters of 1, 2, 3 and 1 bytes, all different.
ANSWER = "aé€b"
BYTES = ANSWER.encode()
FIRST_PART = 260


def parts(text):
    """Return every substring of a text."""
    return [text[begin:end] for begin, end in combinations(range(len(text) + 1), 2)]


def every_split(data):
    for count in range(len(data)):
        for places in combinations(range(1, len(data)), count):
            yield [data[begin:end] for begin, end in pairwise([0, *places, len(data)])]


def cut_at(text, stop):
    return text[: text.index(stop)]


# Checkpoints


def load(folder, **settings):
    return metal_gen.load(folder, **{"max_seq_len": 64, "raw": True, **settings})


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    """A model that says `abcdefgh` and stops."""
    return load(write_text_checkpoint(tmp_path_factory.mktemp("letters"), says=LETTERS.encode()))


@pytest.fixture(scope="module")
def endless(tmp_path_factory):
    """A model that says `CYCLE` again and again."""
    return load(write_text_checkpoint(tmp_path_factory.mktemp("endless"), says=CYCLE, forever=True))


@pytest.fixture(scope="module")
def chance(gambler):
    """A model whose text depends on the seed."""
    return load(gambler, temperature=1.0, max_tokens=20, ignore_eos=True)


def idle_weights(config):
    """Return weights of layers that pass their input on unchanged."""
    return {
        name: np.full(shape, not name.endswith("_proj.weight"), dtype=np.float32)
        for name, shape in tensor_shapes(config).items()
    }


def write_scripted(folder, vocab, hidden, tokens, end):
    """Write weights of a model that says these tokens for any prompt, and then `end`.

    The embedding tells apart only the tokens that it says, which must differ.
    """
    assert len(set(tokens)) == len(tokens) < hidden
    config = tiny_config(vocab_size=vocab, hidden_size=hidden, num_hidden_layers=1)
    weights = idle_weights(config)
    embedding, head = np.zeros((2, vocab, hidden), dtype=np.float32)
    embedding[:, 0] = 1
    for place, (token, successor) in enumerate(pairwise([None, *tokens, end])):
        if token is not None:
            embedding[token] = np.eye(hidden, dtype=np.float32)[place]
        head[successor, place] = 10
    weights.update({"model.embed_tokens.weight": embedding, "lm_head.weight": head})
    return write_checkpoint(folder, config, weights)


class Splitter:
    """Models that say `ANSWER` in tokens of any bytes: the tokenizer has one for every run of them."""

    def __init__(self, folder):
        tokenizer = json.loads(byte_tokenizer().to_str())
        spelling = {byte: character for character, byte in ALPHABET.items()}
        runs = [BYTES[begin:end] for begin, end in combinations(range(len(BYTES) + 1), 2) if end - begin > 1]
        for token, run in enumerate(runs, start=FIRST_PART):
            tokenizer["model"]["vocab"]["".join(spelling[byte] for byte in run)] = token
        tokenizer["model"]["vocab"].update(
            {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
        )
        self.vocab = FIRST_PART + len(runs)
        self.ids = {bytes([byte]): byte for byte in range(256)} | dict(
            zip(runs, range(FIRST_PART, self.vocab), strict=True)
        )
        config = tiny_config(vocab_size=self.vocab, hidden_size=self.vocab, num_hidden_layers=1)
        weights = idle_weights(config)
        weights["model.embed_tokens.weight"] = np.eye(self.vocab, dtype=np.float32)
        write_checkpoint(folder, config, weights)
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
        (folder / "tokenizer_config.json").write_text('{"eos_token": "<|im_end|>"}')
        self.model = load(folder)

    def say(self, split):
        """Make the model say these runs of bytes, and return it."""
        tokens = [self.ids[run] for run in split]
        head = np.zeros((self.vocab, self.vocab), dtype=np.float32)
        head[tokens[0]] = 1
        for token, successor in pairwise([*tokens, IM_END]):
            head[successor, token] = 10
        transformer = self.model.decoder.model
        self.model.decoder.model = replace(transformer, head=Linear(DenseMatrix(mx.array(head))))
        return self.model


@pytest.fixture(scope="module")
def splitter(tmp_path_factory):
    return Splitter(tmp_path_factory.mktemp("splitter"))


# Stop strings


@pytest.mark.parametrize(
    "stop",
    [pytest.param(stop, marks=pytest.mark.release if len(stop) in (2, 3) else ()) for stop in parts(ANSWER)],
)
def test_a_stop_string_at_every_split_over_tokens(splitter, stop):
    for split in every_split(BYTES):
        result = metal_gen.generate(splitter.say(split), "x", stop=[stop])
        assert (result.text, result.stop_text) == (cut_at(ANSWER, stop), stop), split
        assert (result.finish, result.finish_reason) == (FinishDetail.STOP_TEXT, FinishReason.STOP)
        ended = cut_at(ANSWER, stop) + stop
        assert len(b"".join(split[: len(result.token_ids) - 1])) < len(ended.encode())
        assert len(b"".join(split[: len(result.token_ids)])) >= len(ended.encode())


def test_absent_stop_strings_stop_nothing_at_any_split(splitter):
    stops = ["bé", "é€bc", "xa", "aé€b\n", "\u00c3", "\ufffd", "B"]
    for split in every_split(BYTES):
        result = metal_gen.generate(splitter.say(split), "x", stop=stops)
        assert (result.text, result.finish, result.stop_text) == (ANSWER, FinishDetail.EOS, None), split


def test_pieces_are_final(splitter):
    for split in every_split(BYTES):
        pieces = list(metal_gen.stream_generate(splitter.say(split), "x", stop=["€b!", "é€?"]))
        assert "".join(piece.text for piece in pieces) == ANSWER
        fed = b""
        for piece, run in zip(pieces[:-1], split, strict=True):
            fed += run
            whole = fed.decode(errors="ignore")
            shown = "".join(earlier.text for earlier in pieces[: pieces.index(piece) + 1])
            held = next((begun for begun in ("é€", "€b", "é", "€") if whole.endswith(begun)), "")
            assert shown == whole.removesuffix(held), split


@pytest.mark.parametrize(
    ("stops", "text", "stop"),
    [
        (["de", "cd"], "ab", "cd"),
        (["cde", "cd"], "ab", "cd"),
        (["d", "cd", "bcd"], "a", "bcd"),
        (["bcdef", "d"], "abc", "d"),
        (["a"], "", "a"),
        (["h"], "abcdefg", "h"),
        ([LETTERS], "", LETTERS),
        ([LETTERS + "i"], LETTERS, None),
        (["hi", "gh!"], LETTERS, None),
        (["zz", "<|im_end|>"], LETTERS, None),
        ([f"{number:04}" for number in range(4095)] + ["ef"], "abcd", "ef"),
    ],
    ids=str,
)
def test_several_stop_strings(letters, stops, text, stop):
    result = metal_gen.generate(letters, "x", stop=stops)
    assert (result.text, result.stop_text) == (text, stop)
    assert result.finish is (FinishDetail.EOS if stop is None else FinishDetail.STOP_TEXT)


@pytest.mark.parametrize("prompt", ["x stop: cd", "cd", "ab", "x a"])
def test_stop_strings_in_the_prompt_do_not_count(letters, prompt):
    # The answer restarts after a prompt that ends in none of its letters.
    prompt += "."
    assert metal_gen.generate(letters, prompt, stop=[prompt, ".a", prompt[-2:]]).text == LETTERS
    assert metal_gen.generate(letters, prompt, stop=["cd"]).text == "ab"


def test_a_stop_string_completed_by_the_last_allowed_token_counts(letters):
    assert metal_gen.generate(letters, "x", stop=["cd"], max_tokens=4).finish is FinishDetail.STOP_TEXT
    assert metal_gen.generate(letters, "x", stop=["cd"], max_tokens=3).finish is FinishDetail.MAX_TOKENS


@pytest.mark.parametrize(
    ("settings", "finish"),
    [
        ({"max_tokens": 4}, FinishDetail.MAX_TOKENS),
        ({"max_tokens": 4, "min_tokens": 2}, FinishDetail.MAX_TOKENS),
        ({"stop_token": ["e"]}, FinishDetail.STOP_TOKEN),
    ],
    ids=str,
)
def test_held_back_text_comes_when_the_text_ends_otherwise(letters, settings, finish):
    result = metal_gen.generate(letters, "x", stop=["bcdefg"], **settings)
    assert (result.text, result.finish, result.stop_text) == ("abcd", finish, None)


def test_held_back_text_comes_when_the_cache_is_full(tmp_path):
    model = load(write_text_checkpoint(tmp_path, says=LETTERS.encode()), max_seq_len=5)
    result = metal_gen.generate(model, "xx", stop=["bcdefg"])
    assert (result.text, result.finish) == ("abcd", FinishDetail.CACHE_FULL)
    assert result.finish_reason is FinishReason.LENGTH
    assert result.statistics.cache_tokens == 5


def test_a_cut_character_becomes_a_replacement_character(splitter):
    model = splitter.say([bytes([byte]) for byte in BYTES])
    assert metal_gen.generate(model, "x", max_tokens=2).text == "a\ufffd"
    assert metal_gen.generate(model, "x", max_tokens=5, stop=["é\ufffd"]).stop_text == "é\ufffd"
    assert metal_gen.generate(model, "x", max_tokens=5, stop=["é€"]).text == "aé\ufffd"


@pytest.mark.skipif(REAL is None, reason="METAL_GEN_TEST_TOKENIZER names no folder")
def test_stop_strings_over_the_tokens_of_a_real_tokenizer(tmp_path):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(Path(REAL) / name, tmp_path)
    vocab = 151_936
    text = "Grüße aus 東京 👩‍👧! Привет,\n\n naïve café 🦊 한국"
    config = tiny_config(vocab_size=vocab, hidden_size=8, num_hidden_layers=1)
    write_checkpoint(tmp_path, config)
    tokenizer = Checkpoint(tmp_path).tokenizer
    tokens = list(dict.fromkeys(tokenizer.encode(text, add_special_tokens=False)))
    said = b"".join(map(tokenizer.token_bytes, tokens)).decode(errors="replace")
    write_scripted(tmp_path, vocab, 48, tokens, tokenizer.eos_id)
    model = load(tmp_path)
    assert len(tokens) > 20
    assert metal_gen.generate(model, "x").text == said
    for begin in range(0, len(said), 7):
        stop = said[begin : begin + 1 + begin % 5]
        result = metal_gen.generate(model, "x", stop=["#", stop])
        assert (result.text, result.stop_text) == (cut_at(said, stop), stop)


# Thinking


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    """A model that thinks `hm.` and answers `42`."""
    says = [THINK, *b"hm.", END_THINK, *b"\n42"]
    return load(write_text_checkpoint(tmp_path_factory.mktemp("deep"), says=says), raw=False)


@pytest.mark.parametrize(
    ("stop", "answer"), [("m", "42"), (".", "42"), ("2", "4"), ("4", ""), ("\n", "42"), (".4", "42")]
)
def test_stop_strings_apply_to_the_answer_only(deep, stop, answer):
    result = metal_gen.generate(deep, "hi", stop=[stop])
    assert (result.thinking, result.text) == ("hm.", answer)
    assert result.finish is (FinishDetail.EOS if answer == "42" else FinishDetail.STOP_TEXT)


def test_tags_that_are_text_can_be_stop_strings(deep):
    result = metal_gen.generate(deep, "hi", raw=True, stop=["</think>"])
    assert (result.text, result.stop_text) == ("<think>hm.", "</think>")


def test_a_stop_token_ends_the_thinking_too(deep):
    result = metal_gen.generate(deep, "hi", stop_token=["."])
    assert (result.thinking, result.text, result.finish) == ("hm", "", FinishDetail.STOP_TOKEN)
    result = metal_gen.generate(deep, "hi", stop_token=["</think>"])
    assert (result.thinking, result.text, result.finish) == ("hm.", "", FinishDetail.STOP_TOKEN)


@pytest.mark.parametrize(("max_tokens", "text"), [(3, "ab<think>"), (4, "ab<think>h"), (None, "ab<think>hm")])
def test_held_back_text_comes_with_a_tag_that_opens_nothing(tmp_path, max_tokens, text):
    model = load(write_text_checkpoint(tmp_path, says=[*b"ab", THINK, *b"hm"]), raw=False)
    assert metal_gen.generate(model, "hi", stop=["abc"], max_tokens=max_tokens).text == text


# Tokens that end a text


@pytest.mark.parametrize("names", [["d"], ["100"], ["x", "d"], ["h", "100", "d"]], ids=" ".join)
def test_a_stop_token_by_text_or_id_is_cut_off(letters, names):
    result = metal_gen.generate(letters, "x", stop_token=names)
    assert (result.text, result.finish, result.stop_text) == ("abc", FinishDetail.STOP_TOKEN, None)
    assert result.finish_reason is FinishReason.STOP
    assert result.token_ids == list(b"abcd")


def test_a_stop_token_with_a_special_name(tmp_path):
    model = load(write_text_checkpoint(tmp_path, says=[*b"ab", THINK, *b"c"]))
    assert metal_gen.generate(model, "x", stop_token=["<think>"]).text == "ab"
    assert metal_gen.generate(model, "x", stop_token=["<|im_end|>"]).finish is FinishDetail.STOP_TOKEN


def test_digits_are_an_id_rather_than_a_text(deep):
    assert metal_gen.generate(deep, "hi", stop_token=["4"]).text == "42"
    assert metal_gen.generate(deep, "hi", stop_token=[str(ord("4"))]).text == ""


@pytest.mark.parametrize("name", ["é", "Ã", "Ġ"])
def test_a_text_of_two_tokens_is_refused_as_a_name(letters, name):
    with pytest.raises(UsageError, match="2 tokens"):
        metal_gen.generate(letters, "x", ban_token=[name])


@pytest.fixture(scope="module")
def real_tokenizer():
    return Tokenizer(Path(REAL), 151_936)


@pytest.mark.skipif(REAL is None, reason="METAL_GEN_TEST_TOKENIZER names no folder")
@pytest.mark.parametrize(
    "name",
    [
        *(" the", "the", "\n\n", "—", "中", "<|im_end|>", "<think>"),
        *(pytest.param(name) for name in "éüß£°"),
    ],
)
def test_a_real_token_is_named_by_its_text(real_tokenizer, name):
    assert [token_id(real_tokenizer, name)] == real_tokenizer.encode(name, add_special_tokens=False)


@pytest.fixture(scope="module")
def three_ends(tmp_path_factory):
    """A model that repeats `abcdefgh`; config.json, a second file (e, f) and the tokenizer name its ends."""
    folder = tmp_path_factory.mktemp("three_ends")
    write_text_checkpoint(folder, says=[*LETTERS.encode(), IM_END], forever=True, eos_token_id=ord("c"))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [ord("e"), ord("f")]}))
    return load(folder)


@pytest.mark.parametrize(("prompt", "end"), [("x", "c"), ("c", "e"), ("e", "f"), ("f", IM_END)])
def test_every_source_of_end_tokens_counts(three_ends, prompt, end):
    assert three_ends.checkpoint.eos_ids == {*b"cef", IM_END}
    result = metal_gen.generate(three_ends, prompt)
    assert result.token_ids[-1] == (end if end == IM_END else ord(end))
    assert (result.finish, result.finish_reason) == (FinishDetail.EOS, FinishReason.STOP)


def test_the_end_token_is_not_part_of_the_text(three_ends):
    assert metal_gen.generate(three_ends, "x").text == "ab"


@pytest.mark.parametrize("end", [-1, 272, 100_000])
def test_end_tokens_that_the_model_does_not_have_are_refused_or_left_out(tmp_path, end):
    folder = write_text_checkpoint(tmp_path, says=b"ab", eos_token_id=[IM_END, end])
    try:
        checkpoint = Checkpoint(folder)
        ids = checkpoint.eos_ids
    except CheckpointError:
        return
    assert ids <= set(range(checkpoint.config.vocab_size))


def test_an_end_token_that_is_a_stop_token_too(letters):
    result = metal_gen.generate(letters, "x", stop_token=["257", "<|im_end|>"])
    assert (result.text, result.finish) == (LETTERS, FinishDetail.STOP_TOKEN)


# Lengths


@pytest.mark.parametrize("count", range(1, 8))
def test_max_tokens_is_exact(letters, count):
    result = metal_gen.generate(letters, "x", max_tokens=count)
    assert (result.text, len(result.token_ids)) == (LETTERS[:count], count)
    assert (result.finish, result.finish_reason) == (FinishDetail.MAX_TOKENS, FinishReason.LENGTH)


def test_an_end_token_as_the_last_one_allowed_is_an_end(letters):
    assert metal_gen.generate(letters, "x", max_tokens=9).finish is FinishDetail.EOS
    assert (
        metal_gen.generate(letters, "x", max_tokens=9, stop_token=["257"]).finish is FinishDetail.STOP_TOKEN
    )


@pytest.mark.parametrize("prompt_tokens", [1, 2, 63, 64])
def test_a_full_cache(endless, prompt_tokens):
    result = metal_gen.generate(endless, "x" * prompt_tokens)
    assert result.finish is FinishDetail.CACHE_FULL
    assert result.statistics.cache_tokens == 64
    assert len(result.token_ids) == 65 - prompt_tokens


def test_max_tokens_that_just_fill_the_cache_are_max_tokens(endless):
    result = metal_gen.generate(endless, "x" * 60, max_tokens=5)
    assert (result.finish, result.statistics.cache_tokens) == (FinishDetail.MAX_TOKENS, 64)


@pytest.mark.parametrize("count", [1, 8, 9, 10, 20])
def test_min_tokens_delays_the_end(letters, count):
    result = metal_gen.generate(letters, "x", min_tokens=count, max_tokens=30)
    assert result.text.startswith(LETTERS)
    assert IM_END not in result.token_ids[:count]
    assert len(result.token_ids) > count or count > 8
    assert (result.finish is FinishDetail.EOS) == (result.token_ids[-1] == IM_END)
    if count <= 8:
        assert (result.text, result.finish) == (LETTERS, FinishDetail.EOS)


def test_min_tokens_does_not_delay_stop_strings(letters):
    result = metal_gen.generate(letters, "x", min_tokens=6, stop=["cd"])
    assert (result.text, result.finish) == ("ab", FinishDetail.STOP_TEXT)


@pytest.mark.parametrize("strategy", [None, metal_gen.Greedy()], ids=["settings", "strategy"])
def test_ignore_eos_continues_to_the_limit(letters, strategy):
    result = metal_gen.generate(letters, "x", ignore_eos=True, strategy=strategy, max_tokens=40)
    assert (len(result.token_ids), result.finish) == (40, FinishDetail.MAX_TOKENS)
    assert IM_END not in result.token_ids
    full = metal_gen.generate(letters, "x", ignore_eos=True, strategy=strategy)
    assert full.finish is FinishDetail.CACHE_FULL


def test_ignore_eos_leaves_stop_strings_and_stop_tokens(letters):
    assert metal_gen.generate(letters, "x", ignore_eos=True, stop=["ef"]).text == "abcd"
    assert metal_gen.generate(letters, "x", ignore_eos=True, stop_token=["e"]).text == "abcd"


def test_min_tokens_with_a_strategy_counts_or_is_refused(letters):
    try:
        result = metal_gen.generate(letters, "x", strategy=metal_gen.Greedy(), min_tokens=12, max_tokens=20)
    except UsageError:
        return
    assert len(result.token_ids) >= 12


@pytest.mark.parametrize("settings", [{"ban_token": ["a"]}, {"logit_bias": {"b": 100}}], ids=str)
def test_sampling_settings_with_a_strategy_count_or_are_refused(letters, settings):
    try:
        result = metal_gen.generate(letters, "x", strategy=metal_gen.Greedy(), max_tokens=1, **settings)
    except UsageError:
        return
    assert result.text != "a"


# Cancelling


@pytest.mark.parametrize("count", [1, 3, 8])
def test_a_callback_cancels_between_tokens(letters, count):
    seen = []

    def cancel(piece):
        seen.append(piece)
        return len(seen) < count

    result = metal_gen.generate(letters, "x", on_piece=cancel)
    assert (result.text, result.finish) == (LETTERS[:count], FinishDetail.CANCELLED)
    assert result.finish_reason is FinishReason.CANCELLED
    assert result.stop_text is None
    assert result.statistics.completion_tokens == count
    assert metal_gen.generate(letters, "x").text == LETTERS


def test_cancelling_at_the_last_piece_has_no_effect(letters):
    result = metal_gen.generate(letters, "x", on_piece=lambda piece: piece.finish is None)
    assert result.finish is FinishDetail.EOS


def test_a_callback_that_returns_nothing_does_not_cancel(letters):
    assert metal_gen.generate(letters, "x", on_piece=lambda piece: None).text == LETTERS


def test_a_closed_iterator_computes_no_more(letters, monkeypatch):
    steps, step = [], letters.decoder.step
    monkeypatch.setattr(letters.decoder, "step", lambda token: steps.append(token) or step(token))
    pieces = metal_gen.stream_generate(letters, "x")
    assert next(pieces).text == "a"
    pieces.close()
    assert len(steps) == 1
    assert list(pieces) == []
    monkeypatch.undo()
    assert metal_gen.generate(letters, "x").text == LETTERS


def test_nothing_is_computed_before_the_first_piece_is_asked_for(letters, monkeypatch):
    monkeypatch.setattr(letters.decoder, "prefill", None)
    metal_gen.stream_generate(letters, "x").close()


# Several samples


def texts(results):
    return [result.text for result in results]


def test_samples_have_their_own_draws(chance):
    results = metal_gen.generate_samples(chance, "x", 4, seed=5)
    assert len({tuple(result.token_ids) for result in results}) == 4
    assert all(result.finish is FinishDetail.MAX_TOKENS for result in results)


def test_the_first_sample_equals_a_single_text(chance):
    alone = metal_gen.generate(chance, "x", seed=5)
    results = metal_gen.generate_samples(chance, "x", 3, seed=5)
    assert results[0].token_ids == alone.token_ids
    assert results[0].text == alone.text


def test_later_samples_do_not_change_earlier_ones(chance):
    two, four = (metal_gen.generate_samples(chance, "x", count, seed=5) for count in (2, 4))
    assert [result.token_ids for result in two] == [result.token_ids for result in four[:2]]


def test_samples_of_a_chosen_seed_share_it(chance):
    results = metal_gen.generate_samples(chance, "x", 2)
    seeds = {result.statistics.seed for result in results}
    assert len(seeds) == 1
    assert texts(metal_gen.generate_samples(chance, "x", 2, seed=seeds.pop())) == texts(results)


def test_the_prompt_is_computed_once_for_all_samples(chance, monkeypatch):
    calls, prefill = [], chance.decoder.prefill

    def counted(prompt, *arguments, **named):
        calls.append(len(prompt))
        return prefill(prompt, *arguments, **named)

    monkeypatch.setattr(chance.decoder, "prefill", counted)
    results = metal_gen.generate_samples(chance, "prompt", 3, seed=5)
    assert calls == [6]
    assert [result.statistics.cache_tokens for result in results] == [6 + 20 - 1] * 3
    assert [result.statistics.prompt_tokens for result in results] == [6] * 3
    assert [result.statistics.completion_tokens for result in results] == [20] * 3


def test_samples_with_penalties_start_afresh(chance):
    settings = {"repetition_penalty": 1.5, "presence_penalty": 1.0, "frequency_penalty": 0.5, "seed": 5}
    results = metal_gen.generate_samples(chance, "x", 2, temperature=0.0, **settings)
    assert results[0].token_ids == results[1].token_ids
    assert results[0].token_ids == metal_gen.generate(chance, "x", temperature=0.0, **settings).token_ids


@pytest.mark.parametrize(
    ("settings", "text", "finish"),
    [
        ({}, LETTERS, FinishDetail.EOS),
        ({"stop": ["cd"]}, "ab", FinishDetail.STOP_TEXT),
        ({"stop": ["cdefghi"]}, LETTERS, FinishDetail.EOS),
        ({"stop_token": ["c"]}, "ab", FinishDetail.STOP_TOKEN),
        ({"max_tokens": 3}, "abc", FinishDetail.MAX_TOKENS),
    ],
    ids=str,
)
def test_each_sample_ends_by_itself(letters, settings, text, finish):
    results = metal_gen.generate_samples(letters, "x", 3, **settings)
    assert [(result.text, result.finish) for result in results] == [(text, finish)] * 3


def test_each_sample_may_fill_the_cache(endless):
    results = metal_gen.generate_samples(endless, "x" * 60, 3)
    assert [len(result.token_ids) for result in results] == [5, 5, 5]
    assert {result.finish for result in results} == {FinishDetail.CACHE_FULL}


def test_pieces_say_which_sample_they_belong_to(letters):
    pieces = list(metal_gen.stream_generate(letters, "x", samples=3, max_tokens=2))
    assert [piece.sample for piece in pieces] == [0, 0, 1, 1, 2, 2]
    assert [piece.finish is not None for piece in pieces] == [False, True] * 3


def test_cancelling_in_the_second_sample(chance):
    whole = metal_gen.generate_samples(chance, "x", 3, seed=5)
    pieces = metal_gen.stream_generate(chance, "x", samples=3, seed=5)
    seen = [next(pieces) for _ in range(25)]
    pieces.close()
    assert [piece.token_id for piece in seen] == whole[0].token_ids + whole[1].token_ids[:5]
    assert list(pieces) == []
    again = metal_gen.generate_samples(chance, "x", 3, seed=5)
    assert [result.token_ids for result in again] == [result.token_ids for result in whole]


@pytest.mark.parametrize("samples", [0, 3, "many"])
def test_generate_gives_one_text_and_refuses_several(letters, samples):
    with pytest.raises(UsageError, match="samples"):
        metal_gen.generate(letters, "x", samples=samples)


def test_samples_in_a_pipe_end_in_nul(speaker, tmp_path):
    outcome = run_cli("generate", "--model", speaker, "-p", "hi", "--samples", "3", home=tmp_path)
    assert (outcome.code, outcome.stdout) == (0, (SAID.encode() + b"\0") * 3)
    assert outcome.stderr.count("seed ") == 1


def test_samples_in_a_pipe_are_those_of_the_library(gambler, chance, tmp_path):
    arguments = ("--raw", "-p", "x", "--samples", "3", "--temperature", "1", "-n", "20", "--seed", "5")
    outcome = run_cli(
        "generate", "--model", gambler, *arguments, "--ignore-eos", "--ban-token", "0", home=tmp_path
    )
    expected = texts(metal_gen.generate_samples(chance, "x", 3, seed=5, ban_token=["0"]))
    assert outcome.stdout.decode().split("\0") == [*expected, ""]


def test_empty_samples_in_a_pipe(speaker, tmp_path):
    arguments = ("-p", "hi", "--samples", "2", "--stop", SAID[0])
    outcome = run_cli("generate", "--model", speaker, *arguments, home=tmp_path)
    assert (outcome.code, outcome.stdout) == (0, b"\0\0")


def test_one_sample_in_a_pipe_has_no_nul(speaker, tmp_path):
    outcome = run_cli("generate", "--model", speaker, "-p", "hi", "--samples", "1", home=tmp_path)
    assert outcome.stdout == SAID_LINE
