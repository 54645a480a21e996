"""Tests that every family that mlx-lm supports is compared with it, for any layout of the checkpoint."""

import json
import tempfile

import pytest
from tiny_checkpoint import golden_configs, tiny_weights, write_checkpoint
from tiny_text_checkpoint import TEXT_VOCAB, byte_tokenizer

from metal_gen.bench.request import BenchRequest
from metal_gen.bench.suite import Suite
from metal_gen.config.settings import Settings
from metal_gen.errors import MetalGenError
from metal_gen.generation.loading import prepare

CONFIGS = dict(golden_configs())
NAMES = [
    *("qwen2-implied-head-dim", "qwen3-rope-parameters", "qwen2_moe-untied", "qwen3_moe-one-dense"),
    *("qwen3_vl-untied", "qwen3_next-untied", "qwen3_5-untied", "qwen3_5_moe-tied", "qwen3_5_text-alone"),
]
COPY = "mlx-lm loads a copy that metal-gen converted"


def checkpoint(folder, name, **changes):
    config = json.loads(json.dumps(CONFIGS[name])) | changes
    config.get("text_config", config)["vocab_size"] = TEXT_VOCAB
    write_checkpoint(folder, config, tiny_weights(config))
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text("{}")
    return folder


def compared(folder, seen=lambda *progress: None):
    settings = Settings(model=str(folder), max_seq_len=32, model_dtype="float32")
    suite = Suite(
        settings=settings,
        request=BenchRequest(
            repeats=1, warmup=0, sections=("decode",), compare=True, depths=(0, 8), decode_tokens=4
        ),
        prepared=prepare(settings),
        settings_arguments=[],
        print_texts=lambda texts: None,
        on_progress=seen,
    )
    suite.run()
    return suite.report


@pytest.mark.parametrize("name", NAMES)
def test_a_family_is_compared_at_every_depth(name, tmp_path):
    # mlx-lm divides hidden_size among the heads of Qwen2-MoE.
    changes = {"head_dim": 8} if name.startswith("qwen2_moe") else {}
    report = compared(checkpoint(tmp_path, name, **changes))
    speeds = [figure.parameters["depth"] for figure in report.measurements if figure.name == "decode_tps"]
    assert speeds == [0, 0, 8, 8]
    assert any("the same first 4 of 4 greedy tokens" in note for note in report.notes)


def test_a_copy_is_converted_only_if_need_be_and_removed(tmp_path, monkeypatch):
    places = tmp_path / "places"
    places.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(places))
    seen = []
    report = compared(
        checkpoint(tmp_path / "text", "qwen3_5_text-alone"), lambda *progress: seen.append(progress)
    )
    assert f"{COPY}, not the checkpoint: Model type qwen3_5_text not supported" in report.notes
    assert "converting for mlx-lm" in {section for section, _, _ in seen}
    assert not list(places.iterdir())
    report = compared(checkpoint(tmp_path / "whole", "qwen3_5-untied"))
    assert not any(COPY in note for note in report.notes)


def test_a_model_that_mlx_lm_cannot_load_gets_a_sentence(tmp_path):
    with pytest.raises(
        MetalGenError, match=r"mlx-lm cannot load .*; nor can it load what metal-gen conv"
    ) as caught:
        compared(checkpoint(tmp_path, "qwen3_moe-bias"))
    assert "\n" not in caught.value.message
    assert caught.value.hint == "measure without --compare"
