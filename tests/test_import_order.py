"""Tests the layers: which module may import which, which may print, and what a run does not load."""

import ast
import json
import subprocess
import sys
from collections import Counter
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from cli_process import ROOT, clean_environment

pytest_plugins = ("fixtures_text",)

PACKAGE = ROOT / "metal_gen"
# In order: each layer imports from itself and from those before it.
LAYERS = (
    ("errors", "byte_sizes", "background", "control_characters", "excerpt", "take_back"),
    ("config", "files"),
    ("device", "text"),
    ("cache", "sampling", "constraints"),
    ("models",),
    ("hub",),
    ("checkpoint",),
    ("engine", "conversion", "prefix_cache"),
    ("speculation",),
    ("generation",),
    ("scoring",),
    ("__init__", "environment"),
    ("bench", "batch", "device_checks"),
    ("cli", "__main__", "llm_plugin"),
)
RANKS = {name: rank for rank, names in enumerate(LAYERS) for name in names}
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


def source_of(path):
    return (PACKAGE / path).read_text(encoding="utf-8")


@cache
def nodes_of(path):
    """Return all nodes of a file's syntax."""
    return list(ast.walk(ast.parse(source_of(path))))


def layer_of(module):
    """Return the first name below the package in a dotted name; `__init__` for the package itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imports_of(path):
    """Yield every module of the package that a file imports anywhere, with the line."""
    package = ("metal_gen", *path.parent.parts)
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join((*package[: len(package) - node.level + 1], *filter(None, [node.module])))
            names = [f"{base}.{alias.name}" if base == "metal_gen" else base for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] == "metal_gen":
                yield node.lineno, name if is_module(name) else "metal_gen"


def is_module(name):
    place = ROOT.joinpath(*name.split("."))
    return place.is_dir() or place.with_suffix(".py").is_file()


def own_layer(path):
    return path.parts[0].removesuffix(".py")


def test_every_module_is_in_a_layer():
    """A new folder needs a place in LAYERS."""
    assert [str(path) for path in MODULES if own_layer(path) not in RANKS] == []


def test_no_import_points_to_the_right():
    wrong = [
        f"{path}:{line}: {name}"
        for path in MODULES
        for line, name in imports_of(path)
        if RANKS[layer_of(name)] > RANKS.get(own_layer(path), -1)
    ]
    assert wrong == []


def test_the_walk_sees_imports():
    """The test above would pass on an empty list."""
    inside = {name for _, name in imports_of(Path("cli/generate/run.py"))}
    assert {"metal_gen.generation.prompt", "metal_gen.generation.loading", "metal_gen.errors"} <= inside
    assert "metal_gen.cache.kv_cache" in {name for _, name in imports_of(Path("__init__.py"))}
    assert "metal_gen" in {name for _, name in imports_of(Path("cli/app.py"))}


def test_no_imports_form_a_circle():
    graph = {module_name(path): {name for _, name in imports_of(path)} for path in MODULES}
    order = TopologicalSorter({name: imports - {"metal_gen"} for name, imports in graph.items()})
    order.prepare()


def module_name(path):
    return ".".join(("metal_gen", *path.with_suffix("").parts)).removesuffix(".__init__")


def test_a_file_can_be_read_in_one_sitting():
    lengths = {str(path): len(source_of(path).splitlines()) for path in MODULES}
    assert {path: length for path, length in lengths.items() if length > 300} == {}


@pytest.mark.parametrize("root", [PACKAGE, ROOT / "tests"], ids=lambda root: root.name)
def test_a_folder_can_be_taken_in_at_a_glance(root):
    counts = Counter(path.parent for path in root.rglob("*.py") if path.name != "__init__.py")
    assert {folder: count for folder, count in counts.items() if count > 16} == {}


def prints(path):
    for node in nodes_of(path):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            yield f"{path}:{node.lineno}: print"
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            if name.split(".")[0] in ("typer", "click", "rich"):
                yield f"{path}:{node.lineno}: {name}"


def test_only_the_command_line_prints():
    assert [found for path in MODULES if own_layer(path) != "cli" for found in prints(path)] == []


def test_the_command_line_is_seen_to_print():
    assert any("print" in found for found in prints(Path("cli/app.py")))
    assert any("typer" in found for found in prints(Path("cli/app.py")))


# Loaded modules

AT_ITS_END = """
import json, runpy, sys
{code}
roots = sorted({{name.split(".")[0] for name in sys.modules}})
print(json.dumps(roots), file=sys.stderr)
"""
RUN = """
import os
def leave(code): raise SystemExit(code)
os._exit = leave
sys.argv = ["metal-gen", *{arguments!r}]
try:
    runpy.run_module("metal_gen", run_name="__main__")
except SystemExit as exit:
    assert exit.code == 0, exit.code
"""


def loaded_by(code, home):
    """Return the packages that a fresh interpreter has loaded after some code."""
    done = subprocess.run(
        [sys.executable, "-c", AT_ITS_END.format(code=code)],
        env=clean_environment(home),
        cwd=home,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    roots = set(json.loads(done.stderr.splitlines()[-1]))
    assert "metal_gen" in roots
    return roots


@pytest.mark.parametrize(
    "code",
    [
        "import metal_gen",
        "from metal_gen import __version__",
        "import metal_gen.errors, metal_gen.config.sources, metal_gen.config.settings",
        "import metal_gen.batch.output.journal, metal_gen.batch.input.reading, metal_gen.batch.records",
        RUN.format(arguments=["--help"]),
        RUN.format(arguments=["--version"]),
        RUN.format(arguments=["generate", "--help"]),
        RUN.format(arguments=["chat", "--help"]),
        RUN.format(arguments=["bench", "--help"]),
    ],
    ids=[
        "import",
        "version",
        "settings",
        "batch",
        "--help",
        "--version",
        "generate --help",
        "chat --help",
        "bench --help",
    ],
)
def test_little_is_loaded_before_there_is_work(code, tmp_path):
    heavy = {"mlx", "mlx_lm", "transformers", "huggingface_hub", "tokenizers", "jinja2", "numpy", "torch"}
    heavy |= {"prompt_toolkit"}
    assert loaded_by(code, tmp_path) & heavy == set()


def test_a_run_on_a_local_checkpoint_loads_no_framework(speaker, tmp_path):
    run = RUN.format(arguments=["generate", "--model", speaker, "-p", "hi"])
    roots = loaded_by(run, tmp_path)
    assert "mlx" in roots
    heavy = {"transformers", "torch", "mlx_lm", "huggingface_hub", "numpy", "pydantic", "safetensors"}
    heavy |= {"prompt_toolkit"}
    assert roots & heavy == set()
