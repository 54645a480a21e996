"""Other programs' names of options: aliases for the same, and hints for the rest.

A name that mlx_lm.generate, mlx_lm.convert or llama-cli uses for one of our options is an alias of it.
A name for something else, or for something that metal-gen does automatically or not at all, is refused with
a hint. The help lists neither.

Sources: the argument parsers of mlx-lm 0.32.2; tools/cli/README.md of llama.cpp, commit 071795507d.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import typer.core

from metal_gen.errors import UsageError

SAME = {
    "--temp": "temperature",
    "-s": "seed",
    "--repeat-penalty": "repetition_penalty",
    "--predict": "max_tokens",
    "--n-predict": "max_tokens",
    "--max-new-tokens": "max_tokens",
    "--system-prompt": "system",
    "-sys": "system",
    "--ignore-chat-template": "raw",
    "--prefill-response": "prefill",
    "--chat-template-config": "template_arg",
    "--chat-template-kwargs": "template_arg",
    "--hidethinking": "hide_thinking",
    "-f": "prompt_file",
    "--file": "prompt_file",
    "-e": "escape",
    "--output-file": "output",
    "--max-kv-size": "max_seq_len",
    "--ctx-size": "max_seq_len",
    "-c": "max_seq_len",
    "--prefill-step-size": "chunk_size",
    "--memory-limit": "memory_limit_bytes",
    "--adapter-path": "adapter",
    "--q-group-size": "group_size",
    "--q-mode": "mode",
}
_BY_ITSELF = "metal-gen does this by itself: leave it out"
_NO_SAMPLER = "there is no such sampler; `metal-gen help sampling` lists the existing ones"
_HINTS = {
    "-t --threads -tb --threads-batch": "MLX chooses the number of threads; the temperature is --temperature",
    "-dev --device --list-devices": "MLX chooses the device; `metal-gen info` shows it",
    "-ngl --gpu-layers --n-gpu-layers -fa --flash-attn --fit -fit --jinja --mmap --no-mmap": _BY_ITSELF,
    "--perf --no-perf --show-timings --no-show-timings --warmup --no-warmup": _BY_ITSELF,
    "-ub --ubatch-size -b": "--chunk-size N is how many prompt tokens are computed at once",
    "--batch-size": "--chunk-size N is how many prompt tokens are computed at once; "
    "`metal-gen batch` generates several texts at once",
    "-np --parallel": "`metal-gen batch --batch-size N` generates N texts at once",
    "--keep --context-shift --no-context-shift": "a full cache ends the text: raise --max-seq-len",
    "-ctk --cache-type-k -ctv --cache-type-v": "--cache-dtype q8 keeps keys and values in 8 bits",
    "--kv-bits --kv-group-size --quantized-kv-start": "--cache-dtype q8 keeps keys and values in 8 bits, "
    "in groups of 64",
    "--mlock": "on a Mac memory is kept in place from macOS 15 on, unless a settings file has wired = false",
    "-hf -hfr --hf-repo -mu --model-url --hf-path": "the model is named by its Hub id, a folder or a file",
    "--mlx-path": "`metal-gen convert MODEL OUT` names the folder second, without a flag",
    "--q-bits": "--quantize BITS sets the bits",
    "-hft --hf-token": "set HF_TOKEN, or run `hf auth login`",
    "--offline": "set HF_HUB_OFFLINE=1",
    "--trust-remote-code": "metal-gen never runs code from a checkpoint: leave it out",
    "--lora --lora-scaled": "--adapter FOLDER=SCALE takes a folder that PEFT or mlx-lm has saved",
    "-md --model-draft": "--draft-model MODEL names a model that guesses tokens ahead",
    "--num-draft-tokens --draft-max": "--draft-tokens N limits the tokens that are guessed at once",
    "--prompt-cache-file --prompt-cache": "--prefix-cache keeps the beginnings of prompts on disk",
    "-sysf --system-prompt-file": '--system "$(cat FILE)" sets the system message',
    "--chat-template --chat-template-file --use-default-chat-template": "the checkpoint's own template is "
    "used; --raw continues the prompt without it",
    "-rea --reasoning --reasoning-format --think": "--thinking and --no-thinking decide; "
    "--hide-thinking shows the answer alone",
    "--reasoning-budget": "--thinking-budget N ends the thinking after N tokens; --no-thinking leaves it out",
    "-cnv --conversation": "`metal-gen chat` holds a conversation",
    "-no-cnv --no-conversation": "--raw continues the prompt without the chat template",
    "-st --single-turn": "`metal-gen generate` answers one prompt and ends",
    "--display-prompt --no-display-prompt": "a prompt is never printed: leave it out",
    "--no-escape": "a prompt stays as it is typed: leave it out",
    "-r --reverse-prompt": "--stop TEXT ends the answer at a text, and cuts it off",
    "--extra-eos-token": "--stop-token TOKEN ends the answer at a token; repeat it for others",
    "-l": "--logit-bias TOKEN=BIAS, as in --logit-bias 15043=1",
    "--repeat-last-n": "--repetition-window N is for --repetition-penalty alone",
    "--xtc-probability --xtc-threshold --typical --typical-p --top-nsigma --top-n-sigma": _NO_SAMPLER,
    "--mirostat --dynatemp-range --dry-multiplier --samplers --min-tokens-to-keep": _NO_SAMPLER,
    "--grammar-file": "--grammar FILE takes a Lark grammar",
    "--json-schema -jf --json-schema-file": "--schema takes a file, JSON, or fields in short",
    "--image --images --audio --video -mm --mmproj": "only text can be read",
    "--num-ctx --n-ctx --context-size --context-length": "--max-seq-len N sets how many tokens the cache "
    "holds, for prompt and answer together",
    "--max-length": "--max-tokens N limits the answer, and --max-seq-len N prompt and answer together",
    "--num-predict --num-tokens": "--max-tokens N limits the answer",
    "--nothink --no-think --disable-thinking": "--no-thinking leaves the thinking out",
    "--stream --no-stream --streaming": "the text streams to standard output: leave it out; -o FILE writes "
    "it when it is complete",
    "--format --output-format --json-mode": "--schema makes the answer JSON; --json prints one JSON object "
    "with the answer and its counts",
    "--port --host --listen --api-key": "metal-gen is not a server: leave it out; `metal-gen batch - -o -` "
    "answers rows as they come",
    "--keep-alive --keepalive": "no model stays loaded after a command; `metal-gen batch` answers many "
    "prompts with one load",
    "--gpu --cpu --cuda --mps --metal": "MLX chooses the device; `metal-gen info` shows it",
    "-i --interactive --interactive-first --chat": "`metal-gen chat` holds a conversation",
    "--num-beams --beam-size": "there is no beam search: leave it out",
    "--num-return-sequences --num-samples --n-samples --best-of": "--samples N generates N texts",
    "--do-sample --sample": "--temperature 0.8 draws tokens, and --greedy takes the most probable one",
    "--stop-sequence --stop-sequences --stop-strings --stop-words": "--stop TEXT ends the answer at a text; "
    "repeat it for others",
    "--dtype --torch-dtype": "--model-dtype DTYPE sets what is computed in; --cache-dtype DTYPE is for the "
    "cache alone",
    "--load-in-4bit --4bit": "--quantize 4 quantizes the weights while they load",
    "--load-in-8bit --8bit": "--quantize 8 quantizes the weights while they load",
    "--no-cache --use-cache": "keys and values are always cached: leave it out",
    "--color --colour --no-color --no-colour": "set NO_COLOR=1 for no color",
    "--debug --log-level --log-verbosity --verbosity -lv --stats": "-v prints the settings in force and "
    "statistics",
    "--log-disable --log-file": "messages go to standard error: -q prints errors only, and 2>FILE keeps them",
    "--nowordwrap --no-wordwrap --simple-io": "lines are broken and drawn on a terminal alone: leave it out",
    "-qa --quantize-activations": "activations keep their dtype: leave it out",
    "--progress --no-progress": "a terminal shows progress, and a log does not; -q prints errors only",
}
_HINTS_OF_COMMAND = {
    "generate": {
        "--input --in": "--prompt-file FILE reads the prompt from a file; - is standard input",
        "--batch": "`metal-gen batch` answers the rows of a file",
    },
    "batch": {
        "--input --in -i --input-file --prompts": "the input is named without an option: "
        "`metal-gen batch INPUT -o OUTPUT`",
        "--prompt -p": 'each row of INPUT has its prompt; `metal-gen generate "..."` answers a single one',
        "--prompt-file -f --file": "INPUT is named without an option, and each of its rows has a prompt",
        "--json --jsonl --format": "the output is JSON Lines: leave it out",
    },
    "chat": {
        "--prompt -p --prompt-file -f --file": 'messages are typed or piped in; `metal-gen generate "..."` '
        "answers a single one",
        "--json --jsonl --format": "`metal-gen generate --json` prints JSON; --save FILE keeps a chat",
    },
    "convert": {
        "--output -o --output-file --out --output-dir --outfile": "OUT is named without an option: "
        "`metal-gen convert MODEL OUT`",
        "--model -m": "MODEL is named without an option: `metal-gen convert MODEL OUT`",
        "--bits -b": "--quantize BITS sets the bits",
        "--outtype": "--dtype DTYPE sets the dtype, and --quantize BITS quantizes",
    },
    "rm": {"--force -f": "--yes deletes without asking"},
}


def _by_name(hints: Mapping[str, str]) -> dict[str, str]:
    return {name: hint for names, hint in hints.items() for name in names.split()}


HINTS = _by_name(_HINTS)
HINTS_OF_COMMAND = {command: _by_name(hints) for command, hints in _HINTS_OF_COMMAND.items()}


def hints_of(command: str) -> Mapping[str, str]:
    """Return the hint for each option of other programs that a command does not have."""
    return {**HINTS, **HINTS_OF_COMMAND.get(command, {})}


class _OtherOptions(typer.core.TyperOption):
    """A hidden option with all names of other programs that have a hint."""

    names: frozenset[str] = frozenset()

    def add_to_parser(self, parser: Any, ctx: Any) -> None:
        """Add every such name; the name is the value."""
        for name in self.names:
            parser.add_option(obj=self, opts=[name], dest=self.name, action="store_const", const=name)


def other_options(params: Sequence[Any], command: str) -> Any:
    """Return the hidden option that refuses other programs' options that a command does not have."""
    option = _OtherOptions(
        param_decls=["other_option"],
        help="Say what to use for an option of another program",
        hidden=True,
        is_eager=True,
        expose_value=False,
        callback=_refuse,
    )
    # Aliases of the command's own options are accepted.
    taken = {name for name, ours in SAME.items() if ours in {param.name for param in params}}
    option.names = frozenset(hints_of(command).keys() - _names(params) - taken)
    return option


def _names(params: Sequence[Any]) -> set[str]:
    return {name for param in params for name in (*param.opts, *param.secondary_opts)}


def _refuse(context: Any, _: Any, name: str | None) -> None:
    if name is not None and not context.resilient_parsing:
        raise UsageError(f"no such option: {name}", hints_of(context.info_name)[name])


def add_other_names(params: Sequence[Any], parser: Any, context: Any) -> None:
    """Add other programs' names as aliases of these options."""
    by_name = {param.name: param for param in params}
    own = _names(params)
    for other, name in SAME.items():
        if name in by_name and other not in own:
            param = by_name[name]
            shown, param.opts = param.opts, [other]
            param.add_to_parser(parser, context)
            param.opts = shown
