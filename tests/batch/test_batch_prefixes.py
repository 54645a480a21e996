"""A batch takes the beginning of its prompts from the prefix cache, and gives the same texts."""

import json

import pytest

from metal_gen.batch.input.row_parsing import parse_row
from metal_gen.batch.slot_rows import slot_rows
from metal_gen.config.settings import Settings
from metal_gen.generation.loading import prepare

SYSTEM = "You tell stories about careful animals. " * 8


@pytest.fixture
def run(tmp_path):
    """Runs rows over slots; returns their records, and how many tokens came from the disk."""

    def run(prompts, *, cache=True, **settings):
        given = {"prefix_cache": cache, "prefix_cache_dir": str(tmp_path), "prefix_cache_min_tokens": 64}
        chosen = Settings(
            **{**given, "system": SYSTEM, "max_tokens": 6, "batch_size": 2, "seed": 4, **settings}
        )
        texts, cached_tokens = {}, 0
        with slot_rows(prepare(chosen, most_slots=2).load()) as rows:
            waiting = [
                parse_row(number, json.dumps({"id": number, "prompt": prompt}).encode())
                for number, prompt in enumerate(prompts, 1)
            ]
            while waiting or not rows.is_idle:
                while waiting and rows.has_room:
                    assert rows.begin(waiting.pop(0), 4) is None
                for number, outcome in rows.advance():
                    texts[number] = outcome.record
                    cached_tokens += outcome.cached_tokens
            return texts, cached_tokens

    return run


PROMPTS = ["Tell me of a fox.", "Tell me of an owl.", "Who is the smallest?"]


def test_rows_share_what_an_earlier_run_has_stored(run, tmp_path):
    plain, _ = run(PROMPTS, cache=False)
    cold, none = run(PROMPTS)
    warm, stored = run(PROMPTS)
    assert plain == cold == warm
    assert none == 0
    assert stored == 64
    assert len(list(tmp_path.glob("*/*.safetensors"))) == 1


@pytest.mark.release
def test_samples_and_another_number_of_slots_use_it(run):
    plain, _ = run(PROMPTS, cache=False, samples=2)
    run(PROMPTS)
    warm, stored = run(PROMPTS, samples=2, batch_size=1)
    assert warm == plain
    assert stored >= 64


@pytest.mark.release
def test_a_run_stores_a_few_prefixes_at_most(run, tmp_path):
    rows = [f"{number} " + "animals and their houses, " * 20 for number in range(8)]
    run(rows, system=None)
    run(rows, system=None)
    assert len(list(tmp_path.glob("*/*.safetensors"))) == 4
