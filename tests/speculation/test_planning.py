"""Models that guess are checked before any weights are read, and what is wrong with them is one sentence."""

import json

import pytest
from mtp_checkpoint import write_mtp_checkpoint
from story_model import write_story_model
from tiny_checkpoint import hybrid_configs, tiny_config, tiny_weights, write_checkpoint
from tiny_text_checkpoint import write_text_checkpoint

from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.config.settings import SETTINGS, Settings
from metal_gen.conversion.convert import convert
from metal_gen.conversion.new_folder import NewFolder
from metal_gen.errors import CheckpointError, ConfigError, DoesNotFitError, MetalGenError, UsageError
from metal_gen.generation import guessing
from metal_gen.generation.guessing import planned_source
from metal_gen.generation.loading import prepare
from metal_gen.models.matrices.quantized import Packing
from metal_gen.speculation.planning import plan_draft, plan_mtp

CONFIGS = dict(hybrid_configs())


def set_to(**values):
    """Return settings as flags would set them."""
    return Settings().override(values, {name: SETTINGS[name].flag for name in values})


def refused(target, kind=MetalGenError, **values):
    """Return the message and hint with which a source of guesses is refused."""
    with pytest.raises(kind) as caught:
        planned_source(set_to(**values), Checkpoint(target), "float32")
    return caught.value.message, caught.value.hint


@pytest.fixture
def target(tmp_path):
    return write_text_checkpoint(tmp_path / "target")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("qwen3_5-untied", "convert it with `metal-gen convert`, which keeps them"),
        (None, "--speculate lookup"),
    ],
    ids=["hybrid", "dense"],
)
def test_mtp_wants_a_checkpoint_with_heads(name, hint, tmp_path):
    config = tiny_config("qwen3") if name is None else CONFIGS[name]
    message, advice = refused(write_checkpoint(tmp_path, config), UsageError, speculate="mtp")
    assert message == "--speculate: the checkpoint has no layers for multi-token prediction (mtp.*)"
    assert hint in advice
    assert plan_mtp(Settings(), Checkpoint(tmp_path), "float32") is None


def test_heads_that_do_not_fit_are_only_refused_if_they_are_asked_for(tmp_path):
    heads = write_mtp_checkpoint(tmp_path, CONFIGS["qwen3_5-untied"])
    heads.pop("mtp.fc.weight")
    write_checkpoint(
        tmp_path, CONFIGS["qwen3_5-untied"], {**tiny_weights(CONFIGS["qwen3_5-untied"]), **heads}
    )
    assert plan_mtp(Settings(), Checkpoint(tmp_path), "float32") is None
    message, _ = refused(tmp_path, CheckpointError, speculate="mtp")
    assert "mtp.fc.weight is missing" in message


def test_mtp_takes_what_its_weights_and_one_layer_of_cache_take(tmp_path):
    heads = write_mtp_checkpoint(tmp_path, CONFIGS["qwen3_5-untied"])
    memory = planned_source(set_to(speculate="mtp"), Checkpoint(tmp_path), "bfloat16").memory
    numbers = sum(array.size for array in heads.values())
    assert (memory.fixed_bytes, memory.bytes_per_token) == (2 * numbers, 2 * 2 * 2 * 32)


def test_draft_wants_a_model(target):
    message, hint = refused(target, UsageError, speculate="draft")
    assert message == "--speculate: guesses of a draft model need one"
    assert "--draft-model" in hint


def test_a_setting_in_a_file_is_named(target):
    settings = Settings().override({"speculate": "draft"}, "run.toml")
    with pytest.raises(ConfigError, match=r"^run\.toml: \[decode\] speculate: "):
        planned_source(settings, Checkpoint(target), "float32")


def test_a_draft_model_with_another_source_of_guesses_is_refused(target):
    message, _ = refused(target, UsageError, speculate="lookup", draft_model=str(target))
    assert message.startswith("--draft-model: a draft model contradicts")


def test_a_draft_model_has_to_be_there_and_supported(target, tmp_path):
    message, _ = refused(target, draft_model=str(tmp_path / "nowhere"))
    assert message.startswith("--draft-model: ")
    write_text_checkpoint(tmp_path / "other")
    config = json.loads((tmp_path / "other" / "config.json").read_text()) | {"model_type": "llama"}
    (tmp_path / "other" / "config.json").write_text(json.dumps(config))
    message, hint = refused(target, draft_model=str(tmp_path / "other"))
    assert message.startswith("--draft-model: this model is not supported: model_type is ")
    assert "qwen3" in hint


def test_a_draft_model_of_another_vocabulary_is_refused(target, tmp_path):
    draft = write_text_checkpoint(tmp_path / "draft")
    text = (draft / "tokenizer.json").read_text(encoding="utf-8")
    document = json.loads(text)
    vocabulary = document["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (draft / "tokenizer.json").write_text(json.dumps(document))
    message, hint = refused(target, UsageError, draft_model=str(draft))
    assert message == (
        "--draft-model: the draft model has another vocabulary: token 97 is 'b' there, and 'a' in the model"
    )
    assert hint == "choose a smaller model of the same family"


def test_vocabularies_are_compared_by_content(target, tmp_path):
    """A tokenizer may be written differently, have fewer added tokens, or a padded embedding."""
    draft = write_text_checkpoint(tmp_path / "draft", has_tags=False)
    config = json.loads((draft / "config.json").read_text())
    document = json.loads((draft / "tokenizer.json").read_text(encoding="utf-8"))
    (draft / "tokenizer.json").write_text(json.dumps(document, indent=3))
    planned = plan_draft(set_to(draft_model=str(draft)), Checkpoint(target))
    assert planned.checkpoint.folder == draft
    write_checkpoint(draft, {**config, "vocab_size": 258})
    message, _ = refused(target, UsageError, draft_model=str(draft))
    assert message.endswith(
        "the draft model has a smaller vocabulary: it ends at token 257, and the model's at 259"
    )


def test_quantize_counts_for_a_draft_that_is_not_quantized(target, tmp_path):
    draft = write_text_checkpoint(tmp_path / "draft", hidden_size=64)
    planned = plan_draft(set_to(draft_model=str(draft), quantize="4g32"), Checkpoint(target))
    assert planned.checkpoint.packing == Packing(4, 32)
    assert (
        planned.memory.fixed_bytes
        < plan_draft(set_to(draft_model=str(draft)), Checkpoint(target)).memory.fixed_bytes
    )
    convert(Checkpoint(draft, packing=Packing(8, 64)), NewFolder(tmp_path / "quantized"))
    planned = plan_draft(set_to(draft_model=str(tmp_path / "quantized"), quantize="4g32"), Checkpoint(target))
    assert planned.checkpoint.packing is None
    assert planned.checkpoint.weights.is_quantized


def test_without_room_for_guesses_auto_makes_none_and_a_wish_is_refused(tmp_path, monkeypatch):
    """On a GPU, where `auto` guesses."""
    monkeypatch.setattr(guessing, "runs_on_cpu", lambda: False)
    folder = write_story_model(tmp_path)
    settings = set_to(model=str(folder), max_seq_len=64, chunk_size=8)
    with_guesses = prepare(settings)
    assert with_guesses.guesses is not None
    without = prepare(settings.override({"speculate": "off"}, "--speculate")).plan.total_bytes
    assert without < with_guesses.plan.total_bytes
    limited = settings.override({"memory_limit_bytes": without}, "--memory-limit-bytes")
    assert prepare(limited).guesses is None
    with pytest.raises(DoesNotFitError):
        prepare(limited.override({"speculate": "mtp"}, "--speculate"))
