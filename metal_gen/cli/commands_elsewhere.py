"""Other programs' names of commands: aliases, and hints for what to use here."""

import re
import shlex
from collections.abc import Sequence
from difflib import get_close_matches
from itertools import takewhile

from metal_gen.errors import UsageError

# Aliases of commands in a group. The help does not list them.
SAME_COMMANDS = {
    ("models", "ls"): "list",
    ("models", "download"): "pull",
    ("models", "inspect"): "show",
    ("models", "info"): "show",
    ("cache", "ls"): "list",
    ("cache", "inspect"): "show",
    ("cache", "info"): "show",
    ("cache", "check"): "verify",
    **dict.fromkeys(((group, word) for group in ("models", "cache") for word in ("remove", "delete")), "rm"),
}
_MEANT = {
    "models list": "list ls",
    "models pull": "pull download fetch",
    "models rm": "rm remove delete",
    "models show": "show inspect",
    "generate": "complete prompt ask query",
    "convert": "quantize quantise",
    "bench": "benchmark",
    "score": "perplexity",
    "rank": "rerank",
    "config": "settings configure",
    "info": "doctor env",
    "cache": "prefix prefixes prefix-cache prefix_cache",
    "help": "manual docs",
    "--version": "version",
}
_NO_SERVER = "metal-gen is not a server; `metal-gen batch - -o -` answers rows as they come, by one process"
_NOTHING_RUNS = "nothing runs in the background: a command loads its model, does its work and ends"
_PIP = (
    "to upgrade metal-gen, run `git pull` and `pip install .` in the checkout; "
    "`pip uninstall metal-gen` removes it, and `metal-gen models pull` downloads a model"
)
_INSTEAD = {
    "serve server api web ui start": _NO_SERVER,
    "run": "`metal-gen chat --model MODEL` holds a conversation; `metal-gen generate --model MODEL` answers "
    "a prompt",
    "ps stop status kill unload load": _NOTHING_RUNS,
    "login logout auth": "`hf auth login` stores a token for the Hub; HF_TOKEN is read too",
    "install uninstall update upgrade pip pipx uv brew homebrew": _PIP,
    "search": "search on https://huggingface.co/models, then run `metal-gen models pull MODEL`",
    "man": "`man metal-gen` shows the man page, and `metal-gen help` lists the pages of the manual",
    "cache_prompt cache-prompt": "--prefix-cache keeps the beginnings of prompts on disk",
    "create cp push upload": "`metal-gen convert MODEL OUT` writes a checkpoint, and `hf upload` uploads it",
    "eval evaluate": "answers are not rated here; `metal-gen score` says how probable a text is",
    "train lora finetune fine-tune": "mlx_lm.lora trains an adapter; --adapter FOLDER applies it",
    "fuse merge": "--adapter FOLDER applies an adapter without merging; mlx_lm.fuse merges one",
    "tokenize detokenize count tokens": "`metal-gen generate --json` reports how many tokens a prompt has",
    "embed embedding embeddings": "metal-gen generates text only: there are no embeddings",
    "license licence copyright": "metal-gen has the Apache License 2.0; each model has its own license",
    "telemetry privacy": "metal-gen collects nothing: it connects to the Hub alone, to download models",
    "vision": "only text can be read",
    "windows": "metal-gen runs on Windows in WSL, and natively on macOS and Linux",
    "rag mcp agent internet": "a model sees its prompt alone: metal-gen searches nothing and runs no tools",
    "ane neural-engine core-ml coreml": "on a Mac, MLX computes on the GPU, not on the Neural Engine",
    "docker": "metal-gen needs no container; one on a Mac cannot use the GPU",
    "timeout": "there is no time limit: --max-tokens limits the text",
    "logs log": "metal-gen keeps no logs: messages go to standard error, and 2>FILE keeps them",
}
MEANT = {word: command for command, words in _MEANT.items() for word in words.split()}
INSTEAD = {word: hint for words, hint in _INSTEAD.items() for word in words.split()}
# Can be the name of a command; anything else was meant as a prompt.
COMMAND = re.compile(r"[\w-]+", re.ASCII)
# Similarity to a command's name; a less similar word is not treated as a typing error.
LEAST_LIKENESS = 0.7
# Longer commands are shortened in hints.
LONGEST_SHOWN = 100


def other_command(arguments: Sequence[str], path: str, names: Sequence[str]) -> UsageError:
    """Return the error for a command that does not exist.

    Args:
        arguments: The word typed as the command, and those after it.
        path: The words before it.
        names: Names of the existing commands.
    """
    typed, program = arguments[0], path.split()[0]
    lists = f"{path} --help lists the commands"
    if path != program:
        meant = _nearest(typed, names)
        return UsageError(
            f"there is no command {typed}", f"did you mean `{path} {meant}`? {lists}" if meant else lists
        )
    if not COMMAND.fullmatch(typed):
        return UsageError(f"there is no command {typed!r}", f"{_as_prompt(arguments)} answers a prompt")
    if typed in INSTEAD:
        hint = INSTEAD[typed]
    elif meant := MEANT.get(typed) or _nearest(typed, names):
        hint = f"did you mean `{program} {meant}`? {lists}"
    else:
        hint = f"{_as_prompt(arguments)} answers a prompt; {lists}"
    return UsageError(f"there is no command {typed}", hint)


def shown_command(words: Sequence[str]) -> str:
    """Return a command to copy, or only its beginning if it is long."""
    command = shlex.join(words)
    return f"`{command if len(command) <= LONGEST_SHOWN else f'{words[0]} {words[1]} ...'}`"


def _nearest(typed: str, names: Sequence[str]) -> str:
    begun = [name for name in names if len(typed) > 1 and name.startswith(typed)]
    near = begun if len(begun) == 1 else get_close_matches(typed, names, n=1, cutoff=LEAST_LIKENESS)
    return near[0] if near else ""


def _as_prompt(arguments: Sequence[str]) -> str:
    """Return the command that answers the words before the first option as one prompt."""
    words = list(takewhile(lambda word: not word.startswith("-"), arguments))
    return shown_command(["metal-gen", "generate", " ".join(words), *arguments[len(words) :]])
