"""Guesses of models depend on the text alone: a source that has just begun with it makes the same ones."""

import mlx.core as mx
import numpy as np
import pytest
from mtp_checkpoint import write_mtp_checkpoint
from tiny_checkpoint import hybrid_configs, tiny_config, write_checkpoint

from metal_gen.cache.hybrid import new_cache
from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.config.settings import Settings
from metal_gen.engine.decoder import Decoder
from metal_gen.models.cache_size import cache_size
from metal_gen.speculation.draft_model import DraftSource, PlannedDraft
from metal_gen.speculation.planning import plan_mtp

pytestmark = [pytest.mark.metal, pytest.mark.usefixtures("without_fusing")]

CONFIGS = {**dict(hybrid_configs()), "qwen3": tiny_config("qwen3")}
CAPACITY = 96
MTP, DRAFTS = ("mtp qwen3_5_text-alone", "mtp qwen3_next-untied"), ("draft qwen3", "draft qwen3_next-tied")
COMPILED = ("compiled-draft qwen3", "compiled-draft qwen3_next-tied")


class EarlyDecoder(Decoder):
    """As with a kernel, which writes to the cache whatever still reads it."""

    hands_over_early = True


def greedy(logits, place):
    return mx.argmax(logits, axis=-1)


class States:
    """Hidden states of the target for any text."""

    def __init__(self, model):
        self.model = model

    def __call__(self, ids):
        cache = new_cache(cache_size(self.model.config, max_seq_len=CAPACITY, dtype="float32"))
        return self.model(mx.array([ids]), cache)


@pytest.fixture(scope="module", params=[*MTP, *DRAFTS, *COMPILED])
def made(request, tmp_path_factory):
    """The target's states, and a function that makes a source."""
    kind, name = request.param.split()
    folder = tmp_path_factory.mktemp("model")
    if kind.endswith("draft"):
        checkpoint = Checkpoint(write_checkpoint(folder, CONFIGS[name]))
        model, compiles = checkpoint.weights.load("float32"), kind.startswith("compiled")

        def make_draft():
            sizes = cache_size(model.config, max_seq_len=CAPACITY, dtype="float32")
            kind_of = EarlyDecoder if compiles else Decoder
            decoder = kind_of(model, new_cache(sizes), chunk_size=16, compiles=compiles)
            return DraftSource(decoder, model.config.vocab_size)

        return States(model), make_draft
    write_mtp_checkpoint(folder, CONFIGS[name])
    checkpoint = Checkpoint(folder)
    target = checkpoint.weights.load("float32")
    planned = plan_mtp(Settings(), checkpoint, "float32")
    return States(target), lambda: planned.load(target, CAPACITY)


def begin(source, states, prompt, kept=0, chunk=7):
    source.begin(prompt, kept)
    hidden = states(prompt)
    if source.needs_hidden:
        for start in range(kept, len(prompt), chunk):
            source.prefilled(hidden[:, start : start + chunk])


def add(source, states, ids, tokens):
    """Add tokens to the text with their states; return the text."""
    hidden = states(ids + tokens[:-1])[0, len(ids) - 1 :]
    source.accepted(tokens, hidden if source.needs_hidden else None)
    return ids + tokens


def guesses(source, count=3):
    """Return guesses, and the logits that they are drawn from."""
    seen = []

    def draw(logits, place):
        seen.append(logits)
        assert len(seen) == place + 1
        return greedy(logits, place)

    found = source.guess(lambda kind: count, draw)
    return np.array(found.tokens).tolist(), np.array(mx.concatenate(seen))


def assert_fresh(found, make, states, ids):
    """Compare guesses with those of a source that begins with this text."""
    source = make()
    begin(source, states, ids[:-1])
    add(source, states, ids[:-1], ids[-1:])
    tokens, logits = guesses(source, len(found[0]))
    assert found[0] == tokens
    assert np.abs(found[1] - logits).max() <= 1e-4 * np.abs(logits).max()


def test_guesses_depend_on_the_text_alone(made):
    states, make = made
    random, source = np.random.RandomState(7), make()
    ids, prompt = [], []
    for turn in range(11):
        if turn % 5 == 0:
            # A text that begins as the one before.
            kept = int(random.randint(0, len(ids) // 2 + 1))
            prompt = ids[:kept] + random.randint(0, 64, 12).tolist()
            begin(source, states, prompt, 0 if source.needs_hidden else kept)
            ids = add(source, states, prompt, random.randint(0, 64, 1).tolist())
        if turn % 5 == 3:
            count = int(random.randint(0, len(ids) - len(prompt)))
            source.take_back(count)
            ids = ids[: len(ids) - count]
            ids = add(source, states, ids, random.randint(0, 64, 1).tolist())
        count = int(random.randint(1, 6))
        found = guesses(source, count)
        assert_fresh(found, make, states, ids)
        accepted = found[0][: int(random.randint(0, count + 1))]
        ids = add(source, states, ids, [*accepted, int(random.randint(64))])


def test_all_new_tokens_can_be_taken_back_for_another_sample(made):
    states, make = made
    prompt, source = list(range(20)), make()
    begin(source, states, prompt)
    for _ in range(2):
        source.accepted([33], None)  # From the prompt's own pass.
        assert_fresh(guesses(source), make, states, [*prompt, 33])
        add(source, states, [*prompt, 33], [5, 6])
        source.take_back(3)


def test_a_part_of_what_was_accepted_can_be_taken_back(made):
    states, make = made
    source, ids = make(), list(range(20))
    begin(source, states, ids)
    ids = add(source, states, ids, [33])
    ids = add(source, states, ids, [*guesses(source)[0], 7])
    source.take_back(2)
    assert_fresh(guesses(source), make, states, ids[:-2])
    add(source, states, ids[:-2], [8])
    source.take_back(3)
    add(source, states, ids[:-4], [50, 51, 52, 53])
    assert_fresh(guesses(source), make, states, [*ids[:-4], 50, 51, 52, 53])


def test_no_guess_is_made_where_there_is_no_room(made):
    states, make = made
    source = make()
    begin(source, states, [1, 2, 3])
    add(source, states, [1, 2, 3], [4])
    assert source.guess(lambda kind: 0, greedy) is None
    assert_fresh(guesses(source), make, states, [1, 2, 3, 4])


def test_the_cache_may_be_filled_to_its_end(made):
    states, make = made
    source = make()
    ids = [(5 * place) % 64 for place in range(CAPACITY - 3)]
    begin(source, states, ids[:-1])
    add(source, states, ids[:-1], ids[-1:])
    assert len(guesses(source, 3)[0]) == 3


@pytest.mark.parametrize("made", MTP, indirect=True)
def test_heads_ask_for_the_state_of_the_last_token_and_go_on_after_a_gap(made):
    states, make = made
    source, ids = make(), list(range(20))
    begin(source, states, ids)
    ids = add(source, states, ids, [33])
    guesses(source)
    source.accepted([8, 9], None)
    assert source.guess(lambda kind: 3, greedy).tokens == ()
    ids = add(source, states, [*ids, 8, 9], [10])
    assert len(guesses(source)[0]) == 3
    # Only the last text has a gap.
    source.take_back(3)
    ids = add(source, states, ids[:-3], [40])
    assert_fresh(guesses(source), make, states, ids)


@pytest.mark.parametrize("made", MTP, indirect=True)
@pytest.mark.parametrize("kept", [2, 5, 9])
def test_pairs_of_a_kept_prefix_stay_but_for_the_last(made, kept):
    """The last pair has another token, and no states come for kept tokens."""
    states, make = made
    source, new = make(), [*range(kept), *range(40, 50)]
    begin(source, states, list(range(20)))
    begin(source, states, new, kept)
    assert source._cache.position == (kept - 1) + (len(new) - 1 - kept)
    add(source, states, new, [33])
    assert len(guesses(source)[0]) == 3


@pytest.mark.parametrize("made", MTP, indirect=True)
def test_pairs_do_not_pile_up_while_another_source_guesses(made):
    states, make = made
    source, ids = make(), [3] * 8 + [token % 64 for token in range(70)]
    begin(source, states, ids[:8])
    hidden = states(ids)[0]
    for place in range(8, len(ids)):
        source.accepted([ids[place]], hidden[place - 1 : place])
    assert len(source._pairs.waiting.tokens) < 64
    assert_fresh(guesses(source), make, states, ids)


def test_a_draft_of_another_size_of_embedding_fits(tmp_path):
    folder = write_checkpoint(tmp_path, tiny_config("qwen3", vocab_size=50))
    planned = PlannedDraft(Checkpoint(folder), "float32", "float32", most_guesses=4)
    shapes = []
    for vocab_size in (40, 64):
        source = DraftSource(planned.load_decoder(CAPACITY), vocab_size)
        source.begin([1, 2, 63], 0)
        source.accepted([62], None)
        found = source.guess(
            lambda kind: 2, lambda logits, place: shapes.append(logits.shape) or greedy(logits, place)
        )
        assert max(found.tokens.tolist()) < min(vocab_size, 50)
    assert shapes == [(1, 40)] * 2 + [(1, 64)] * 2


def test_the_memory_of_a_draft_is_known(tmp_path):
    planned = PlannedDraft(
        Checkpoint(write_checkpoint(tmp_path, CONFIGS["qwen3_next-tied"])),
        "float32",
        "float32",
        most_guesses=4,
    )
    decoder = planned.load_decoder(CAPACITY)
    cache = decoder.cache.config
    weights = planned.checkpoint.weights.nbytes("float32")
    assert planned.memory.nbytes(CAPACITY) == weights + cache.nbytes
    assert cache.state_nbytes


@pytest.mark.parametrize(("kind", "compiled"), [(EarlyDecoder, 5), (Decoder, 0)])
def test_functions_of_a_draft_are_few(tmp_path, kind, compiled):
    """Those of 2, 3, 4, 5 and 9 tokens; none where several tokens cost as much as so many steps."""
    model = Checkpoint(write_checkpoint(tmp_path, CONFIGS["qwen3"])).weights.load("float32")
    sizes = cache_size(model.config, max_seq_len=CAPACITY, dtype="float32")
    decoder = kind(model, new_cache(sizes), chunk_size=16, compiles=True)
    source, states = DraftSource(decoder, model.config.vocab_size), States(model)
    ids = list(range(12))
    begin(source, states, ids)
    for count in [*range(2, 9), *range(2, 9)]:
        ids = add(source, states, ids, [7] * count)
        assert guesses(source, 1)[0] == [int(mx.argmax(model.logits(states(ids))[0, -1]))]
    assert decoder.compiled_rows.count == compiled
