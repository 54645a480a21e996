"""What other programs call options and commands: names that mean the same, and hints for the others.

A name that mlx_lm.generate, mlx_lm.convert or llama-cli has for exactly one of our options is taken for it.
A name that means something else there, or something that this program does by itself or not at all, is
refused with what to use instead. Help lists neither.

Sources: the argument parsers of mlx-lm 0.32.2; tools/cli/README.md of llama.cpp, commit 071795507d.
"""

import re
from collections.abc import Sequence
from difflib import get_close_matches
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
_NO_SAMPLER = "there is no such sampler; `metal-gen help sampling` lists those that there are"
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
    "-ctk --cache-type-k -ctv --cache-type-v": "--cache-dtype float16 sets the dtype of keys and values",
    "--kv-bits --kv-group-size --quantized-kv-start": "the cache cannot be quantized; --cache-dtype float16 "
    "halves one in float32",
    "--mlock": "on a Mac memory is kept in place from macOS 15 on, unless a settings file has wired = false",
    "-hf -hfr --hf-repo -mu --model-url --hf-path": "the model is named by its Hub id, a folder or a file",
    "--mlx-path": "`metal-gen convert MODEL OUT` names the folder second, without a flag",
    "--q-bits": "--quantize BITS sets the bits",
    "-hft --hf-token": "set HF_TOKEN, or run `hf auth login`",
    "--offline": "set HF_HUB_OFFLINE=1",
    "--trust-remote-code": "metal-gen never runs code from a checkpoint: leave it out",
    "--lora --lora-scaled": "--adapter FOLDER=SCALE takes a folder that PEFT or mlx-lm has saved",
    "-md --model-draft --draft-model --num-draft-tokens": "there is no speculative decoding: leave it out",
    "--prompt-cache-file --prompt-cache": "no cache is kept on disk: leave it out",
    "-sysf --system-prompt-file": '--system "$(cat FILE)" sets the system message',
    "--chat-template --chat-template-file --use-default-chat-template": "the checkpoint's own template is "
    "used; --raw continues the prompt without it",
    "-rea --reasoning --reasoning-format --think": "--thinking and --no-thinking decide; "
    "--hide-thinking shows the answer alone",
    "--reasoning-budget": "there is no budget; --no-thinking leaves the thinking out",
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
    "--grammar --grammar-file --json-schema -jf --json-schema-file": "a text cannot be held to a grammar",
    "--image --audio --video -mm --mmproj": "only text can be read",
}
HINTS = {name: hint for names, hint in _HINTS.items() for name in names.split()}

_COMMANDS = {
    **dict.fromkeys(("list", "ls"), "models list"),
    **dict.fromkeys(("pull", "download"), "models pull"),
    **dict.fromkeys(("rm", "remove", "delete"), "models rm"),
    "show": "models show",
    **dict.fromkeys(("run", "complete", "completion", "prompt"), "generate"),
    "quantize": "convert",
    "benchmark": "bench",
    "settings": "config",
    "version": "--version",
}
# What could be the name of a command; anything else was meant as a prompt.
COMMAND = re.compile(r"[\w-]+", re.ASCII)


class _OtherOptions(typer.core.TyperOption):
    """A hidden option that has all names of other programs for which there is a hint."""

    own: frozenset[str] = frozenset()

    def add_to_parser(self, parser: Any, ctx: Any) -> None:
        """Take every such name that is none of the command's own; the name is the value."""
        for name in HINTS.keys() - self.own:
            parser.add_option(obj=self, opts=[name], dest=self.name, action="store_const", const=name)


def other_options(params: Sequence[Any]) -> Any:
    """The option that refuses what other programs have and a command has not."""
    option = _OtherOptions(
        param_decls=["other_option"],
        help="Say what to use for an option of another program",
        hidden=True,
        is_eager=True,
        expose_value=False,
        callback=_refuse,
    )
    option.own = frozenset(name for param in params for name in (*param.opts, *param.secondary_opts))
    return option


def _refuse(context: Any, _: Any, name: str | None) -> None:
    if name is not None and not context.resilient_parsing:
        raise UsageError(f"no such option: {name}", HINTS[name])


def add_other_names(params: Sequence[Any], parser: Any, context: Any) -> None:
    """Take the names of other programs that mean one of these options."""
    by_name = {param.name: param for param in params}
    own = {name for param in params for name in (*param.opts, *param.secondary_opts)}
    for other, name in SAME.items():
        if name in by_name and other not in own:
            param = by_name[name]
            shown, param.opts = param.opts, [other]
            param.add_to_parser(parser, context)
            param.opts = shown


def other_command(typed: str, path: str, names: Sequence[str]) -> UsageError:
    """What to say of a command that does not exist.

    Args:
        typed: The word in its place.
        path: The words before it.
        names: Of the commands that there are.
    """
    if not COMMAND.fullmatch(typed):
        return UsageError(f"there is no command {typed!r}", 'metal-gen generate "..." answers a prompt')
    program = path.split()[0]
    close = get_close_matches(typed, names, n=1)
    meant = f"{path} {close[0]}" if close else f"{program} {_COMMANDS[typed]}" if typed in _COMMANDS else ""
    guess = f"did you mean `{meant}`? " if meant else ""
    if not meant and path == program:
        guess = f'`{program} generate "{typed}"` answers a prompt; '
    return UsageError(f"there is no command {typed}", f"{guess}{path} --help lists the commands")
