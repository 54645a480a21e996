"""Writes the generated pages of the manual: settings, commands, and which model fits which Mac.

    python scripts/make_manual.py

A test compares the pages with the output of this script.
"""

import json
import struct
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import typer

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "support" / "checkpoints"))

from tiny_checkpoint import tensor_shapes  # noqa: E402

from metal_gen.cli.app import app  # noqa: E402
from metal_gen.cli.option_help import default_of, names_of  # noqa: E402
from metal_gen.cli.output.option_page import every_option  # noqa: E402
from metal_gen.config.settings import SETTINGS, Settings  # noqa: E402
from metal_gen.config.settings_file import example_of  # noqa: E402
from metal_gen.generation.memory.planning import plan_memory  # noqa: E402
from metal_gen.generation.opening import open_checkpoint  # noqa: E402

MANUAL = ROOT / "metal_gen" / "manual"
GIB = 1 << 30
# Metal's recommended working set in GiB: two thirds of the memory up to 32 GB, three quarters above.
MACS = {8: 16 / 3, 16: 32 / 3, 24: 16.0, 32: 64 / 3, 36: 27.0, 48: 36.0, 64: 48.0, 128: 96.0}
QWEN3: dict[str, Any] = {
    "model_type": "qwen3",
    "head_dim": 128,
    "num_key_value_heads": 8,
    "vocab_size": 151_936,
    "max_position_embeddings": 40_960,
    "tie_word_embeddings": False,
    "dtype": "bfloat16",
}
# Fields of the models' config.json.
SHAPES: dict[str, dict[str, Any]] = {
    "Qwen3-0.6B": {
        **{"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28},
        **{"num_attention_heads": 16, "tie_word_embeddings": True},
    },
    "Qwen3-1.7B": {
        **{"hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28},
        **{"num_attention_heads": 16, "tie_word_embeddings": True},
    },
    "Qwen3-4B": {
        **{"hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36},
        **{"num_attention_heads": 32, "tie_word_embeddings": True},
    },
    "Qwen3-8B": {
        **{"hidden_size": 4096, "intermediate_size": 12_288, "num_hidden_layers": 36},
        "num_attention_heads": 32,
    },
    "Qwen3-14B": {
        **{"hidden_size": 5120, "intermediate_size": 17_408, "num_hidden_layers": 40},
        "num_attention_heads": 40,
    },
    "Qwen3-32B": {
        **{"hidden_size": 5120, "intermediate_size": 25_600, "num_hidden_layers": 64},
        "num_attention_heads": 64,
    },
    "Qwen3-30B-A3B": {
        **{"model_type": "qwen3_moe", "hidden_size": 2048, "intermediate_size": 6144},
        **{"num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4},
        **{"num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768},
        "norm_topk_prob": True,
    },
    "Qwen3.5-27B": {
        **{"model_type": "qwen3_5_text", "hidden_size": 5120, "intermediate_size": 17_408},
        **{"num_hidden_layers": 64, "num_attention_heads": 24, "num_key_value_heads": 4, "head_dim": 256},
        **{"linear_num_key_heads": 16, "linear_num_value_heads": 48, "linear_conv_kernel_dim": 4},
        **{"linear_key_head_dim": 128, "linear_value_head_dim": 128, "vocab_size": 248_320},
        **{"layer_types": (["linear_attention"] * 3 + ["full_attention"]) * 16},
        "max_position_embeddings": 262_144,
    },
}
BITS = (None, "8", "4")
# Options that every command with a model has.
# Commands over rows, whose options for them are those of a batch.
LIKE_BATCH = ("score", "rank")
AND_THE_OPTIONS = "`metal-gen score` and `metal-gen rank`, beside the options of `batch` for rows"
COMMON = ("config", "verbose", "quiet", "greedy", "help", "json")

SETTINGS_INTRODUCTION = """\
# Settings

Flags come first, then `METAL_GEN_*` variables, then `--config FILE`, then
`$XDG_CONFIG_HOME/metal-gen/config.toml` (`~/.config` by default), then the checkpoint's own
`generation_config.json`, then the defaults. `-v` shows every value in force and where it came from.

`metal-gen config init` writes a file with every setting in a comment, `config show` lists the settings,
`config path` prints where your own file is, and `config check FILE` checks one.

A setting has the same name everywhere: `max_seq_len` in TOML, `--max-seq-len`, `METAL_GEN_MAX_SEQ_LEN`. Where
TOML has a shorter key, the section says the rest. `metal-gen help NAME` explains one.

`0` or `-1` for `top_k`, and `-1` for `max_tokens`, `seed` and `repetition_window`, turn them off, whatever
the checkpoint's `generation_config.json` sets. Sizes have units: `12G` and `12GiB` are 12 x 2^30 bytes, and
`12GB` is 12 x 10^9. A settings file has 128 KiB at most."""
COMMANDS_INTRODUCTION = """\
# Commands

`metal-gen COMMAND --help` lists all options. Those that are [settings](settings.md) are left out here, and so
are `--config FILE` (read settings from this file too), `--greedy` (temperature 0), `--json` (write JSON),
`-v` and `-vv` (print settings and where they come from) and `-q` (print errors only)."""
MACS_INTRODUCTION = """\
# Which model on which Mac

In short:

| memory | model |
|---|---|
| 8 GB | Qwen3-4B, `--quantize 4` |
| 16 GB | Qwen3-8B, `--quantize 4` |
| 24 GB | Qwen3-14B, `--quantize 4` |
| 32 GB | Qwen3.5-27B, `--quantize 4` |
| 36, 48 GB | Qwen3-30B-A3B or Qwen3-32B, `--quantize 4` |
| 64 GB and more | Qwen3-30B-A3B or Qwen3-32B, `--quantize 8` |

`--quantize 8` and `--quantize 4` quantize while loading. MLX checkpoints with as many bits need the same
memory.

## How many tokens fit

The table has the largest `max_seq_len` that fits next to the weights, by metal-gen's own plan:
"""
MACS_END = """
The plan uses the working set that Metal recommends: two thirds of the memory up to 32 GB and three quarters
above. Other programs need memory too; leave them some. The Qwen3 models were trained for 40,960 tokens,
Qwen3.5-27B for 262,144. Qwen3.6-27B and Qwen3.8-27B have the same shape. Guesses by their MTP layers take
more memory.

A larger model in 4 bits usually answers better than a smaller one in bfloat16. Mixtures such as Qwen3-30B-A3B
need the memory of all their experts, but only the time of a few.

`metal-gen plan MODEL --quantize 4` computes the same for any model before a download, for the machine
that it runs on.

## For another Mac

`--memory-limit-bytes` takes the working set of any Mac, a smaller or a larger one: 21G for 32 GB, 48G for
64 GB, 96G for 128 GB. Plan before you buy:

```console
$ metal-gen plan Qwen/Qwen3-32B --quantize 8 --memory-limit-bytes 48G
```

The plan then says that it is for another machine, and what this one has. It computes as this machine does: on
a CPU, add `--model-dtype bfloat16`, because a Mac computes in the dtype of the checkpoint. Other commands
never take more than this machine has, and say so where the limit is higher.

## How this was computed

Nothing here has been measured on a Mac. `python scripts/make_manual.py` computes the table."""


def settings_page() -> str:
    """Return the page of settings, with their names in all places."""
    lines = [SETTINGS_INTRODUCTION]
    section = ""
    for info in SETTINGS.values():
        if info.section != section:
            section = info.section
            lines += ["", f"## `[{section}]`", "", "| TOML | flag | does | default |", "|---|---|---|---|"]
        flag = f"`{info.flag}`" if any(each.param.name == info.name for each in _options()) else ""
        lines.append(
            f"| `{_cell(f'{info.key} = {example_of(info)}')}` | {flag} | {_cell(info.help)} | "
            f"{_cell(info.shown_default)} |"
        )
    return "\n".join(lines) + "\n"


def commands_page() -> str:
    """Return the page of commands with their own options; settings have their own page."""
    lines = [COMMANDS_INTRODUCTION]
    program, context = _program()
    names_and_help: dict[str, set[tuple[str, str | None]]] = {}
    for found in every_option(program, context):
        names_and_help.setdefault(found.command, set()).add((names_of(found.param), found.param.help))
    group = ""
    for words, command in _commands(program):
        options = [
            each.param
            for each in every_option(program, context)
            if each.command == " ".join(words) and each.param.name not in (*SETTINGS, *COMMON)
        ]
        if len(words) > 1 or words[0] in LIKE_BATCH:
            shared = names_and_help["batch"] if words[0] in LIKE_BATCH else set()
            options = [each for each in options if (names_of(each), each.help) not in shared]
            heading = AND_THE_OPTIONS if words[0] in LIKE_BATCH else f"`metal-gen {words[0]}`"
            if heading != group:
                group = heading
                lines += [
                    "",
                    f"## {group}",
                    "",
                    "| command | does | its options |",
                    "|---|---|---|",
                ]
            described = "; ".join(f"`{_cell(names_of(each))}`: {_cell(_does(each))}" for each in options)
            lines.append(
                f"| `metal-gen {' '.join(words)}` | {_cell(_first_paragraph(command))} | {described} |"
            )
            continue
        lines += ["", f"## `metal-gen {words[0]}`", "", _first_paragraph(command), ""]
        if options:
            lines += ["| option | does | default |", "|---|---|---|"]
        for param in options:
            lines.append(
                f"| `{_cell(names_of(param))}` | {_cell(_does(param))} | {_cell(default_of(param))} |"
            )
    return "\n".join(lines).replace("\n\n\n", "\n\n") + "\n"


def _first_paragraph(command: Any) -> str:
    return " ".join((command.help or "").split("\n\n")[0].split())


def _does(param: Any) -> str:
    return (param.help or "").removesuffix(".")


def macs_page() -> str:
    """Return the page with the largest cache that fits next to each model on each Mac."""
    lines = [MACS_INTRODUCTION, "| model | weights | " + " | ".join(f"{size} GB" for size in MACS) + " |"]
    lines.append("|---|---|" + "---|" * len(MACS))
    for name, shape in SHAPES.items():
        for bits in BITS:
            sizes = [_longest(name, shape, bits, gib) for gib in MACS.values()]
            cells = [f"{size:,}" if size else "no" for size in sizes]
            weights = f"{bits} bits" if bits else "bfloat16"
            lines.append(f"| {name} | {weights} | {' | '.join(cells)} |")
    lines.append(MACS_END)
    return "\n".join(lines) + "\n"


def _longest(name: str, shape: dict[str, Any], bits: str | None, gib: float) -> int:
    with (
        tempfile.TemporaryDirectory() as folder,
        patch("metal_gen.device.backend.runs_on_cpu", lambda: False),
        patch("metal_gen.generation.memory.working.runs_on_cpu", lambda: False),
    ):
        config = {**QWEN3, **shape}
        _write_headers(Path(folder), config)
        limit = int(gib * GIB)
        settings = Settings(quantize=bits, memory_limit_bytes=limit, max_seq_len=1)
        with patch("metal_gen.generation.memory.planning.available_memory_bytes", lambda: limit):
            plan = plan_memory(settings, open_checkpoint(Path(folder), settings))
        return plan.longest_fit(config["max_position_embeddings"])


def _write_headers(folder: Path, config: dict[str, Any]) -> None:
    """Write a checkpoint whose weights are sparse, because a plan reads only headers."""
    (folder / "config.json").write_text(json.dumps(config))
    header: dict[str, Any] = {}
    end = 0
    for name, sizes in tensor_shapes(config).items():
        size = 2
        for each in sizes:
            size *= each
        header[name] = {"dtype": "BF16", "shape": list(sizes), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)


def _program() -> tuple[Any, Any]:
    program: Any = typer.main.get_command(app)
    return program, program.make_context("metal-gen", [], resilient_parsing=True)


def _options() -> list[Any]:
    program, context = _program()
    return list(every_option(program, context))


def _commands(program: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name in program.commands:
        command = program.commands[name]
        if hasattr(command, "commands"):
            yield from _commands(command, (*path, name))
        else:
            yield (*path, name), command


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


PAGES = {
    "reference/settings.md": settings_page,
    "reference/commands.md": commands_page,
    "guides/which-model.md": macs_page,
}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (MANUAL / name).write_text(page(), encoding="utf-8")
