"""Tests batches with linear attention: records depend neither on slots nor on where a run was resumed."""

import pytest
from test_batch_runner import Records
from tiny_checkpoint import LINEAR_ATTENTION
from tiny_text_checkpoint import write_text_checkpoint

from metal_gen.batch import slot_rows as slot_rows_module
from metal_gen.batch.input.rows import BatchRow, RowForm
from metal_gen.batch.runner import run_rows
from metal_gen.batch.slot_rows import slot_rows
from metal_gen.config.settings import Settings
from metal_gen.generation.loading import prepare

pytestmark = pytest.mark.metal

SYSTEM = "You are a poet who answers in verse, in few words, and never twice in the same way. "


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    config = {"model_type": "qwen3_5_text", **LINEAR_ATTENTION, "partial_rotary_factor": 0.5}
    return str(write_text_checkpoint(tmp_path_factory.mktemp("hybrid"), **config))


def rows():
    for number in range(1, 7):
        prompt = (SYSTEM if number % 2 else "") + "abc" * number
        settings = {"samples": 3} if number == 3 else {"max_tokens": 2 * number}
        yield BatchRow(number, number, f"int:{number}", RowForm.NATIVE, prompt, settings, {})


def run(folder, slots, *, finished=(), ordered=False):
    """Return records by id, in the order in which they were written, and the shared prompt tokens."""
    settings = Settings(model=folder, max_seq_len=256, batch_size=slots, max_tokens=8, temperature=1.0)
    journal = Records()
    for number in finished:
        journal.finished.add(f"int:{number}")
    with slot_rows(prepare(settings, most_slots=8).load()) as executor:
        run_rows(
            rows(),
            executor,
            journal,
            seed=3,
            ordered=ordered,
            on_idle=lambda: None,
            on_step=lambda counts: None,
            on_notice=lambda line: None,
            on_failure=lambda row: None,
        )
    journal.finished.close()
    return {record["id"]: record for record in journal.records}, executor.decoder.shared_tokens


def test_rows_are_the_same_for_any_slots_and_after_a_resume(folder, monkeypatch):
    # These prompts share less than a part on a GPU.
    monkeypatch.setattr(slot_rows_module, "prompt_stride", lambda: 64)
    alone, _ = run(folder, 1)
    assert len({sample["text"] for sample in alone[3]["texts"]}) == 3
    for slots in (2, 5):
        together, shared = run(folder, slots, ordered=True)
        assert list(together) == list(range(1, 7))
        assert together == alone
        assert shared > 0
    resumed, _ = run(folder, 4, finished=(1, 2, 5))
    assert resumed == {number: alone[number] for number in (3, 4, 6)}
