"""Tests that `metal-gen plan` gives the numbers of a run, without reading weights."""

import json
import tempfile
from functools import partial

import mlx.core as mx
import pytest
import safetensors.numpy
from gguf_file import gguf_config, write_tiny_gguf
from hub_process import INDEX, SHARDS
from hub_server import Repo, running_hub
from huggingface_hub import constants
from model_cache import folder_files
from tiny_checkpoint import tiny_config, write_checkpoint

from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.cli.output.plan_report import render_plan
from metal_gen.cli.terminal.tables import to_plain
from metal_gen.config.settings import Settings
from metal_gen.errors import DoesNotFitError
from metal_gen.generation.loading import prepare
from metal_gen.generation.memory.planning import plan_memory
from metal_gen.hub import headers as hub_headers

pytest_plugins = ("fixtures_cli", "fixtures_text")

USAGE, NOT_FOUND, BAD_CHECKPOINT, DOES_NOT_FIT = 2, 4, 5, 6
LIMIT = 700_000


@pytest.fixture(autouse=True)
def _no_weights_are_read(monkeypatch):
    def refuse(path):
        raise AssertionError(f"{path} is read")

    monkeypatch.setattr(mx, "load", refuse)


def planned(run_here, *arguments, code=0):
    outcome = run_here("plan", *arguments, "--json")
    assert outcome.code == code, outcome.stderr
    return json.loads(outcome.stdout)


def test_the_numbers_are_those_of_a_run(run_here, gambler):
    plan = planned(run_here, gambler, "--max-seq-len", 100, "--batch-size", 3, "--cache-dtype", "float16")
    run = prepare(Settings(model=gambler, max_seq_len=100, batch_size=3, cache_dtype="float16")).plan
    assert plan["weights_bytes"] == run.weights_bytes
    assert plan["cache_bytes"] == run.cache.nbytes == plan["cache_bytes_per_token"] * 100 * 3
    assert plan["working_bytes"] == run.working_bytes
    assert plan["total_bytes"] == run.total_bytes
    asked = {"batch_size": 3, "cache_dtype": "float16", "total_bytes": run.total_bytes}
    assert [other for other in plan["alternatives"] if other.items() >= asked.items()]


def test_several_texts_at_once_have_no_guesses_as_in_a_run(run_here, gambler):
    arguments = ("--max-seq-len", 100, "--speculate", "lookup", "--batch-size")
    assert planned(run_here, gambler, *arguments, 1)["guesses_bytes"] > 0
    plan = planned(run_here, gambler, *arguments, 3)
    run = prepare(Settings(model=gambler, max_seq_len=100, batch_size=3, speculate="lookup")).plan
    assert plan["guesses_bytes"] == run.guesses_bytes == 0
    assert plan["total_bytes"] == run.total_bytes


def test_8_bits_are_shown_where_heads_have_that_form(run_here, tmp_path):
    sizes = {}
    for head_dim in (32, 64):
        config = tiny_config("qwen3", head_dim=head_dim)
        plan = planned(run_here, write_checkpoint(tmp_path / str(head_dim), config))
        sizes[head_dim] = {
            other["cache_dtype"]: other["cache_bytes_per_token"] for other in plan["alternatives"]
        }
    assert "q8" not in sizes[32]
    assert sizes[64]["q8"] / sizes[64]["bfloat16"] == (64 + 2 * 4) / (64 * 2)


def test_the_largest_cache_fits_and_the_next_does_not(run_here, gambler):
    plan = planned(run_here, gambler, "--memory-limit-bytes", LIMIT, "--chunk-size", 8)
    (other,) = [
        other
        for other in plan["alternatives"]
        if (other["batch_size"], other["cache_dtype"]) == (4, "bfloat16")
    ]
    longest = other["largest_max_seq_len"]
    assert 0 < longest < plan["context_length"]
    settings = Settings(
        model=gambler, memory_limit_bytes=LIMIT, chunk_size=8, batch_size=4, cache_dtype="bfloat16"
    )
    prepare(settings.override({"max_seq_len": longest}, "test"))
    with pytest.raises(DoesNotFitError):
        prepare(settings.override({"max_seq_len": longest + 1}, "test"))


def test_without_a_size_the_cache_is_as_long_as_fits(run_here, gambler):
    limit = planned(run_here, gambler, "--max-seq-len", 100, "--chunk-size", 8)["total_bytes"]
    limited = (gambler, "--memory-limit-bytes", limit, "--chunk-size", 8)
    assert planned(run_here, *limited)["max_seq_len"] == 100
    assert planned(run_here, *limited, "--batch-size", 2, code=DOES_NOT_FIT)["max_seq_len"] == 256


def test_a_plan_that_does_not_fit_is_shown_anyway(run_here, gambler):
    outcome = run_here("plan", gambler, "--max-seq-len", 10**9)
    assert outcome.code == DOES_NOT_FIT
    lines = [line.split() for line in outcome.stdout.decode().splitlines()]
    assert ["fits", "no"] in lines
    assert outcome.stderr.startswith("metal-gen: ")
    assert "--max-seq-len" in outcome.stderr.splitlines()[1]
    assert planned(run_here, gambler, "--max-seq-len", 10**9, code=DOES_NOT_FIT)["fits"] is False


@pytest.mark.parametrize("quantize", [(), ("--quantize", "4g32")], ids=["as-stored", "quantized"])
def test_the_parts_add_up(run_here, tmp_path, quantize):
    """While it is quantized, the largest matrix is in memory twice, here more than everything else."""
    config = {"hidden_size": 64, "vocab_size": 8192, "tie_word_embeddings": True}
    folder = str(write_checkpoint(tmp_path / "wide", tiny_config("qwen3", **config)))
    arguments = ("plan", folder, "--chunk-size", "8", "--max-seq-len", "64", *quantize)
    plan = planned(run_here, *arguments[1:])
    parts = plan["weights_bytes"] + plan["cache_bytes"] + plan["working_bytes"]
    assert plan["total_bytes"] == max(parts, plan["loading_bytes"])
    assert (plan["total_bytes"] > parts) is bool(quantize)
    assert ("while loading" in run_here(*arguments).stdout.decode()) is bool(quantize)
    outcome = run_here(*arguments, "--memory-limit-bytes", plan["total_bytes"] - 1)
    assert outcome.code == DOES_NOT_FIT
    assert ("to read the weights" in outcome.stderr) is bool(quantize)


def test_a_plan_has_the_model_and_its_draft(run_here, gambler):
    alone = planned(run_here, gambler, "--max-seq-len", 64)
    both = planned(run_here, gambler, "--max-seq-len", 64, "--draft-model", gambler)
    assert both["guesses_bytes"] == alone["weights_bytes"] + alone["cache_bytes"]
    assert both["total_bytes"] >= alone["total_bytes"] + both["guesses_bytes"]
    words = [
        line.split()
        for line in run_here("plan", gambler, "--draft-model", gambler).stdout.decode().splitlines()
    ]
    assert any(line[:1] == ["guesses"] and line[-2:] == ["a", "token"] for line in words)


def test_where_only_guesses_do_not_fit_the_hint_names_them(run_here, gambler):
    limit = planned(run_here, gambler, "--max-seq-len", 8, "--chunk-size", 8)["total_bytes"]
    limited = ("plan", gambler, "--chunk-size", 8, "--memory-limit-bytes", limit + 1000)
    outcome = run_here(*limited, "--draft-model", gambler)
    assert outcome.code == DOES_NOT_FIT
    assert "guesses" in outcome.stderr
    assert "--speculate off" in outcome.stderr.splitlines()[1]


def test_memory_that_is_not_known_refuses_nothing(run_here, gambler, monkeypatch):
    monkeypatch.setattr("metal_gen.generation.memory.planning.available_memory_bytes", lambda: 0)
    plan = planned(run_here, gambler, "--max-seq-len", 10**9)
    assert plan["available_bytes"] is None
    assert plan["fits"] is True
    assert plan["largest_max_seq_len"] == plan["context_length"]
    assert "not known" in run_here("plan", gambler).stdout.decode()


@pytest.mark.parametrize(("here", "is_elsewhere"), [(LIMIT, False), (300_000, True), (0, False)])
def test_a_limit_above_this_machine_plans_for_another_one(run_here, gambler, monkeypatch, here, is_elsewhere):
    monkeypatch.setattr("metal_gen.generation.memory.planning.available_memory_bytes", lambda: here)
    # The largest array of this machine says nothing of another one.
    monkeypatch.setattr(
        "metal_gen.generation.memory.planning.most_array_bytes", lambda: 1 if is_elsewhere else 0
    )
    limited = (gambler, "--memory-limit-bytes", LIMIT, "--chunk-size", 8, "--max-seq-len", 64)
    plan = planned(run_here, *limited)
    assert (plan["available_bytes"], plan["available_here_bytes"]) == (LIMIT, here or None)
    assert (plan["for_another_machine"], plan["fits"]) == (is_elsewhere, True)
    assert 300_000 < plan["total_bytes"] <= LIMIT
    outcome = run_here("plan", *limited)
    assert (b"on another machine" in outcome.stdout) is is_elsewhere
    assert ("a Mac of 64 GB" in outcome.stderr) is is_elsewhere


def test_a_run_never_takes_more_than_this_machine_and_says_so(gambler, monkeypatch):
    monkeypatch.setattr("metal_gen.generation.memory.planning.available_memory_bytes", lambda: LIMIT)
    settings = Settings(model=gambler, chunk_size=8)
    for limit, is_said in ((LIMIT, False), (LIMIT + 1, True)):
        run = prepare(settings.override({"memory_limit_bytes": limit}, "--memory-limit-bytes"))
        assert run.plan.available_bytes == LIMIT
        said = [notice for notice in run.notices if "has no effect (--memory-limit-bytes)" in notice]
        assert len(said) == is_said
    with pytest.raises(DoesNotFitError):
        prepare(settings.override({"memory_limit_bytes": 10**12, "max_seq_len": 10**6}, "test"))


def test_the_model_is_an_option_too_as_in_other_commands(run_here, gambler):
    assert planned(run_here, "-m", gambler)["model"] == gambler == planned(run_here, gambler)["model"]
    outcome = run_here("plan", gambler, "--model", gambler)
    assert (outcome.code, "named twice" in outcome.stderr) == (USAGE, True)


@pytest.fixture
def online(monkeypatch, gambler, tmp_path):
    """A Hub with one model, in one file and in two."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    (tmp_path / "temporary").mkdir()
    with running_hub() as hub:
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub.endpoint)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        hub.repos["org/whole"] = Repo(folder_files(gambler))
        hub.repos["org/parts"] = Repo(in_two_parts(folder_files(gambler)))
        yield hub


def in_two_parts(files):
    """Return the same checkpoint, with its weights in two files and an index."""
    tensors = safetensors.numpy.load(files.pop("model.safetensors"))
    names = sorted(tensors)
    shards = dict(zip(SHARDS, (names[::2], names[1::2]), strict=True))
    for shard, part in shards.items():
        files[shard] = safetensors.numpy.save({name: tensors[name] for name in part})
    files[INDEX] = json.dumps(
        {"weight_map": {name: shard for shard, part in shards.items() for name in part}}
    ).encode()
    return files


@pytest.mark.parametrize(
    ("model", "first_bytes"), [("org/whole", hub_headers.FIRST_BYTES), ("org/parts", 20)]
)
def test_of_a_model_on_the_hub_headers_are_read_and_nothing_is_kept(
    run_here, online, gambler, tmp_path, monkeypatch, model, first_bytes
):
    monkeypatch.setattr(hub_headers, "FIRST_BYTES", first_bytes)
    plan, local = planned(run_here, model), planned(run_here, gambler)
    for one_of_them in (plan, local):
        for name in (
            "model",
            "available_bytes",
            "available_here_bytes",
            "largest_max_seq_len",
            "alternatives",
        ):
            one_of_them.pop(name)
    assert plan == local
    weights = [request for request in online.log if str(request.file).endswith(".safetensors")]
    assert weights
    assert all(request.range is not None for request in weights)
    assert not (tmp_path / "hf" / "hub").exists()
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_model_that_the_hub_lacks_gets_a_sentence(run_here, online, tmp_path):
    outcome = run_here("plan", "org/none")
    assert (outcome.code, outcome.stdout) == (NOT_FOUND, b"")
    assert "no such model on the Hub" in outcome.stderr
    online.repos["org/cut"] = Repo({**online.repos["org/whole"].files, "model.safetensors": b"cut"})
    outcome = run_here("plan", "org/cut")
    assert outcome.code == BAD_CHECKPOINT
    assert "org--cut/model.safetensors is damaged" in outcome.stderr


def test_a_model_that_is_not_here_needs_the_network(run_here):
    outcome = run_here("plan", "org/name")
    assert (outcome.code, outcome.stdout) == (NOT_FOUND, b"")
    assert "the model is not in the cache, and HF_HUB_OFFLINE is set: org/name" in outcome.stderr
    assert run_here("plan", "--batch-size", "0").code == USAGE


def test_what_is_planned_has_a_tokenizer_that_can_be_read(run_here, tmp_path):
    config = gguf_config("qwen3")
    write = partial(write_tiny_gguf, tmp_path, config, lambda name: "Q8_0")
    file, plain = write()
    planned(run_here, file)
    write({"tokenizer.ggml.pre": "llama-bpe"})
    outcome = run_here("plan", file)
    assert (outcome.code, outcome.stdout) == (BAD_CHECKPOINT, b"")
    assert "tokenizer.ggml.pre is 'llama-bpe'" in outcome.stderr

    planned(run_here, plain)  # It has none.
    (plain / "tokenizer.json").write_text("{}")
    outcome = run_here("plan", plain)
    assert (outcome.code, outcome.stdout) == (BAD_CHECKPOINT, b"")
    assert "tokenizer.json" in outcome.stderr


def test_without_a_model_it_is_the_bundled_one(run_here):
    assert b"the bundled model" in run_here("plan").stdout
    assert planned(run_here)["model"] == "the bundled model"


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_table_fits_any_terminal(gambler, width):
    checkpoint = Checkpoint(prepare(Settings(model=gambler)).checkpoint.folder)
    plan = plan_memory(Settings(model=gambler), checkpoint)
    lines = to_plain(render_plan("org/name", checkpoint, plan, width), width).splitlines()
    assert max(map(len, lines)) <= width
    assert lines.count("texts     cache     in all  longest  ok") <= 2
    # A row of figures, or a list of them under its name.
    assert sum(line.removeprefix("texts").split()[:1] == ["16"] for line in lines) == 2, lines
