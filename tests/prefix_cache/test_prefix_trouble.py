"""What comes between: a full disk, a folder that is read-only, changed files, other processes, cron."""

import errno
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from adapter_files import peft_tensors, random_factors, write_peft
from cli_process import ROOT, clean_environment, command
from model_cache import folder_files, put_model
from stored_prefixes import answer, entries, load_with_cache
from tiny_text_checkpoint import CHATML, write_text_checkpoint

import metal_gen
from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.cli.help_topics import FOLDER
from metal_gen.files.whole_file import WholeFile
from metal_gen.prefix_cache import keys

PROMPT = "Tell me about a fox."
RULES = " ".join(map(str, range(100)))
CRON_LINE = re.compile(r"^\*/5 \* \* \* \* (.*)$", re.MULTILINE)
# What cron sets.
CRON_PATH = "/usr/bin:/bin"


@pytest.fixture
def load(tmp_path):
    """Loads a model with a prefix cache of its own."""
    return partial(load_with_cache, tmp_path)


def left_over(folder):
    return [
        path.name for path in (folder / "prefixes").rglob("*") if path.is_file() and "lock" not in path.name
    ]


def fail_to_write(monkeypatch, method, number):
    def fail(*arguments, **named):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(WholeFile, method, fail)


@pytest.mark.parametrize(
    ("method", "number"), [("write", errno.ENOSPC), ("commit", errno.ENOSPC), ("__init__", errno.EROFS)]
)
def test_what_cannot_be_written_is_one_notice(load, tmp_path, monkeypatch, method, number):
    expected = answer(metal_gen.load(chunk_size=64), PROMPT)
    model = load()
    fail_to_write(monkeypatch, method, number)
    for _ in range(2):
        assert answer(model, PROMPT).token_ids == expected.token_ids
    assert model.prefixes.take_notices() == [f"cannot write to the prefix cache: {os.strerror(number)}"]
    if method == "__init__":
        assert left_over(tmp_path) == []


def test_a_folder_that_has_become_read_only_is_read(load, monkeypatch):
    first = answer(load(), PROMPT)
    fail_to_write(monkeypatch, "__init__", errno.EROFS)
    model = load()
    again = answer(model, PROMPT)
    assert again.token_ids == first.token_ids
    assert again.statistics.stored_tokens > 0
    assert model.prefixes.take_notices() == []


@pytest.mark.quick
def test_entries_of_an_older_version_are_not_used(load, tmp_path, monkeypatch):
    answer(load(), PROMPT)
    monkeypatch.setattr(keys, "FORMAT", keys.FORMAT + 1)
    assert answer(load(), PROMPT).statistics.stored_tokens == 0
    assert len(entries(tmp_path)) == 2


def test_another_adapter_template_or_weights_of_the_same_size_are_a_miss(load, tmp_path):
    """Files of the same sizes: only what is in them, and their times, differ."""
    folder = write_text_checkpoint(tmp_path / "model", max_position_embeddings=1024)
    name = "model.layers.0.self_attn.q_proj"
    shape = Checkpoint(folder).weights.sources[f"{name}.weight"].shape

    def adapt(seed):
        return write_peft(tmp_path / "adapter", peft_tensors(random_factors({name: shape}, seed)))

    def stored_tokens(**settings):
        return answer(load(str(folder), **settings), PROMPT, system=RULES).statistics.stored_tokens

    adapter = adapt(1)
    answer(load(str(folder), adapter=(adapter,)), PROMPT, system=RULES)
    assert stored_tokens(adapter=(adapter,)) > 0
    assert stored_tokens() == 0
    assert stored_tokens(adapter=(f"{adapter}=0.5",)) == 0
    adapt(2)
    assert stored_tokens(adapter=(adapter,)) == 0
    assert stored_tokens(adapter=(adapter,)) > 0
    template = CHATML.replace("<|im_start|>", "<|im_start|>a ", 1)
    write_text_checkpoint(folder, max_position_embeddings=1024, chat_template=template)
    assert stored_tokens() == 0


@pytest.mark.quick
@pytest.mark.release
def test_eight_processes_at_once_give_one_text_and_one_whole_entry(tmp_path):
    arguments = ("generate", PROMPT, "--system", RULES, "-n", "4", "-q", "--seed", "3", "--prefix-cache")
    environment = clean_environment(tmp_path, METAL_GEN_PREFIX_CACHE_MIN_TOKENS="64")
    start = partial(
        subprocess.Popen, command(*arguments), env=environment, cwd=tmp_path, stdin=subprocess.DEVNULL
    )
    running = [start(stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(8)]
    ended = [(*process.communicate(), process.returncode) for process in running]
    assert {stderr for _, stderr, _ in ended} == {b""}
    assert {code for *_, code in ended} == {0}
    assert len({text for text, *_ in ended}) == 1
    assert [path.name for path in tmp_path.rglob("*.part")] == []
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1
    done = subprocess.run(command("cache", "verify"), env=environment, capture_output=True, check=False)
    assert done.returncode == 0


def test_the_crontab_line_of_the_manual_finds_what_it_has_stored(tmp_path):
    """As printed, with what cron sets and no more."""
    page = (FOLDER / "guides" / "prefixes.md").read_text(encoding="utf-8")
    [line] = CRON_LINE.findall(page)
    folder = write_text_checkpoint(tmp_path / "made", says=b"Yes.\n", max_position_embeddings=2048)
    put_model(tmp_path / ".cache" / "huggingface" / "hub", "Qwen/Qwen3-4B", folder_files(folder))
    program = tmp_path / "metal-gen" / ".venv" / "bin" / "metal-gen"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m metal_gen "$@"\n')
    program.chmod(0o755)
    (tmp_path / "rules.txt").write_text(RULES)
    (tmp_path / "inbox.txt").write_text("Is this urgent?\n")
    environment = {"HOME": str(tmp_path), "PATH": CRON_PATH, "SHELL": "/bin/sh", "LOGNAME": "me"}

    def run():
        done = subprocess.run(
            ["/bin/sh", "-c", line], cwd="/", env=environment, capture_output=True, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")

    run()
    [entry] = Path(tmp_path / ".cache" / "metal-gen" / "prefixes").glob("*/*.safetensors")
    os.utime(entry, (1, 1))
    run()
    # Using an entry renews its time.
    assert entry.stat().st_mtime > 1
    assert (tmp_path / "answers.txt").read_text() == "Yes.\nYes.\n"
