"""What the command line says of stored prefixes: once, after the text, and with the right exit code."""

import json

import pytest

pytest_plugins = ("fixtures_cli",)

SYSTEM = " ".join(map(str, range(100)))


@pytest.fixture
def generate(run_here, monkeypatch):
    """Generate two tokens with the prefix cache."""
    monkeypatch.setenv("METAL_GEN_PREFIX_CACHE_MIN_TOKENS", "64")
    arguments = ("generate", "--prefix-cache", "--system", SYSTEM, "Hello.", "-n", "2")
    return lambda *more: run_here(*arguments, *more)


def damage(folder):
    [path] = folder.rglob("*.safetensors")
    content = bytearray(path.read_bytes())
    content[-2000] ^= 1
    path.write_bytes(content)
    return path


def test_a_damaged_entry_is_said_once_and_found_by_verify(generate, run_here, tmp_path):
    assert json.loads(generate("--json").stdout)["usage"]["cached_tokens"] == 0
    assert json.loads(generate("--json").stdout)["usage"]["cached_tokens"] > 0
    path = damage(tmp_path)
    verified = run_here("cache", "verify")
    assert verified.code == 5
    assert f"metal-gen cache rm {path.name[:12]}" in verified.stderr
    outcome = generate("--samples", "2")
    assert outcome.code == 0
    assert outcome.stderr.count("computed instead") == 1
    assert run_here("cache", "verify").code == 0


def test_an_entry_of_another_version_is_not_damaged(generate, run_here, tmp_path):
    generate()
    [path] = tmp_path.rglob("*.safetensors")
    assert json.loads(run_here("cache", "list", "--json").stdout)[0]["state"] == "ready"
    path.write_bytes(path.read_bytes().replace(b'"crc32_of_pieces"', b'"crc32_otherwise"'))
    assert json.loads(run_here("cache", "list", "--json").stdout)[0]["state"] == "other version"
    listed = run_here("cache", "list").stdout
    assert b"other version" in listed
    assert b"damaged" not in listed
    verified = run_here("cache", "verify")
    assert verified.code == 0
    assert "0 damaged, 1 of another version" in verified.stderr
    path.write_bytes(path.read_bytes()[:-1])
    assert json.loads(run_here("cache", "list", "--json").stdout)[0]["state"] == "damaged"
    assert run_here("cache", "verify").code == 5


@pytest.mark.quick
def test_a_folder_that_cannot_be_used_is_a_warning(generate, run_here, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("METAL_GEN_PREFIX_CACHE_DIR", str(tmp_path / "file"))
    outcome = generate()
    assert outcome.code == 0
    assert outcome.stdout
    assert outcome.stderr.count("cannot use the prefix cache") == 1


def test_rm_deletes_what_list_lists(generate, run_here, tmp_path):
    generate()
    other = tmp_path / ".cache" / "metal-gen" / "prefixes" / "mine" / "model.safetensors"
    other.parent.mkdir()
    other.write_bytes(b"weights")
    [listed] = json.loads(run_here("cache", "list", "--json").stdout)
    assert run_here("cache", "rm", "").code == 2
    assert "deleted 1 stored prefix" in run_here("cache", "rm", listed["name"]).stderr
    assert run_here("cache", "list", "--json").stdout.strip() == b"[]"
    run_here("cache", "rm", "--all")
    assert other.exists()


def test_a_batch_says_how_many_prompt_tokens_came_from_the_cache(run_here, tmp_path, monkeypatch):
    monkeypatch.setenv("METAL_GEN_PREFIX_CACHE_MIN_TOKENS", "64")
    rows = tmp_path / "in.jsonl"
    rows.write_text('{"prompt": "Hello."}\n{"prompt": "Bye."}\n')
    arguments = ("batch", str(rows), "--prefix-cache", "--system", SYSTEM, "-n", "2", "--overwrite")
    counts, said = [], []
    for _ in range(2):
        outcome = run_here(
            *arguments, "-o", str(tmp_path / "out.jsonl"), "--summary", str(tmp_path / "sum.json")
        )
        counts.append(json.loads((tmp_path / "sum.json").read_text())["cached_tokens"])
        said.append("from the prefix cache" in outcome.stderr)
    assert counts[0] == 0
    assert counts[1] >= 64
    assert counts[1] % 64 == 0
    assert said == [False, True]


@pytest.mark.quick
def test_the_folder_is_an_option_of_each_command_that_uses_it(generate, run_here, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"prompt": "Hello."}\n')
    place = ("--prefix-cache-dir", "elsewhere")
    assert generate(*place).code == 0
    assert "0 damaged" in run_here("cache", "verify", *place).stderr
    arguments = ("batch", "in.jsonl", "-o", "-", "--prefix-cache", "--system", SYSTEM, "-n", "2")
    run_here(*arguments, *place, "--summary", "sum.json", "--chunk-size", "32")
    summary = json.loads((tmp_path / "sum.json").read_text())
    assert summary["chunk_size"] == 32
    assert list((tmp_path / "elsewhere").rglob("*.safetensors"))
    assert run_here("cache", "list", "--json").stdout.strip() == b"[]"


@pytest.mark.quick
def test_plan_counts_what_storing_takes(run_here):
    """A layer is read or written at a time, which is more than a short prompt takes to compute."""
    arguments = ("plan", "--json", "--chunk-size", "1")
    plain, storing = (json.loads(run_here(*arguments, *more).stdout) for more in ((), ("--prefix-cache",)))
    assert storing["total_bytes"] >= plain["total_bytes"]
    assert storing["working_bytes"] > plain["working_bytes"]
