"""The pages of the manual, and the words for which `metal-gen help` finds them."""

import re
from collections.abc import Sequence
from pathlib import Path

from metal_gen.errors import ExitCode

# One file per page, in a folder per section.
FOLDER = Path(__file__).resolve().parents[1] / "manual"
SECTIONS = ("guides", "concepts", "reference")
# Maximum number of pages named for a word that they contain.
MOST_MENTIONS = 5
# Other words for the topics.
_ALIASES = {
    "generate": "interrupt ctrl-c cancel cut-off truncated template templates chat-template unicode "
    "utf-8 encoding emoji locale stream streaming progress stdin stdout stderr pipe pipes "
    "shell terminal redirect prompts files reasoning think stopping stops stop-strings "
    "eos end tokens",
    "chat": "multiline several-lines paste new-line conversation conversations talk transcript "
    "transcripts interactive",
    "batch": "openai bulk parallel concurrency folder-of-files batches batching cron launchd "
    "jsonl-rows queue slots cluster ray nightly crash-safe retry journal csv classify "
    "classification",
    "models": "offline proxy mirror gated token access-token hf-token hf-home hf-endpoint login "
    "delete-model remove-model list-models download-location model-location disk-space "
    "model-files downloads download downloading hub huggingface gguf quantization "
    "quantizing bits",
    "which-model": "fit fits mac macs which choose apple metal m1 m2 m3 m4 recommended",
    "structured-output": "choices pattern patterns schemas json-schema constrained constraints guided lark "
    "regexp",
    "tool-calls": "tool function functions function-calling tool-calling tool-use",
    "scores": "perplexity rerank reranker reranking ranking rankings scoring likelihood",
    "prefixes": "prefix prefix-caching prompt-cache prompt-caching caching",
    "longer-texts": "yarn rope long-context long-texts context context-length context-window length",
    "adapters": "fine-tune finetune train training lora peft fine-tuning finetuning",
    "llm": "llm-plugin plugin shells bash zsh fish tab-completion man-pages",
    "switching": "mlx-lm llama-cli llama-cpp ollama other-programs migrate migration aliases",
    "benchmarks": "benchmark benchmarking",
    "troubleshooting": "loop loops repetition repetitions repeats repeating nonsense gibberish garbage ssh "
    "stutter problems problem faq hangs empty crash crashes error errors bug bugs help-me "
    "fails failure traceback debug",
    "memory": "cache kv-cache vram ram plan-memory oom out-of-memory size working-memory",
    "sampling": "samplers sampler strategy strategies filters creativity random nucleus",
    "reproducibility": "same-answer same-text different-answer seeds repeat deterministic determinism",
    "speed": "tokens-per-second tps too-slow threads cpu performance fast slow openblas faster",
    "speculation": "speculative speculative-decoding draft drafts mtp lookup guesses guess prompt-lookup "
    "multi-token-prediction",
    "settings": "env env-vars default-model change-model set-model configuration configure variables "
    "environment environment-variables toml defaults options",
    "commands": "command cli",
    "exit-codes": "exit exits exit-code exit-status status-codes code codes error-codes return-codes",
    "json": "jsonl json-output output-format jq records",
    "formats": "architectures families supported safetensors awq gptq fp8 mlx qwen",
    "library": "python api module import",
    "measured": "status figures measurements results",
    "measured-gpu": "nvidia cuda h200",
    "source": "architecture folders code-layout internals model-family",
}
ALIASES = {word: page for page, words in _ALIASES.items() for word in words.split()}
_EXIT_CODES = {str(code.value) for code in ExitCode}
# Words before a number that is an exit code.
EXIT_WORDS = {"exit", "code", "exit-code", "exit-status", "status", "error", "error-code", "return-code"}
# Words that say nothing about the topic of a question, such as "where are my models".
_FILLERS = frozenset(
    "a all an and are can change do does for from get how i in into is it make me my not of on or see set "
    "show the to too use using what where with".split()
)
# The memory of a Mac, such as 16 GB.
_MEMORY_SIZE = re.compile(r"\d+-?(g|gb|gib)")


def topics() -> dict[str, Path]:
    """Return the pages by topic."""
    return {path.stem: path for section in SECTIONS for path in sorted((FOLDER / section).glob("*.md"))}


def find_topic(words: Sequence[str]) -> Path | None:
    """Return the page for some words; words that say nothing, and a plural, make no difference.

    A page is found by its file name, an exit code, a memory size, an alias or a heading.
    """
    topic = _slug(" ".join(words))
    telling = "-".join(word for word in topic.split("-") if word not in _FILLERS)
    tried = dict.fromkeys((topic, telling, f"{telling}s", telling.removesuffix("s")))
    return next((page for name in tried if name and (page := _page_named(name)) is not None), None)


def _page_named(topic: str) -> Path | None:
    files = topics()
    if topic in files:
        return files[topic]
    before, _, number = topic.rpartition("-")
    if number in _EXIT_CODES and before in {"", *EXIT_WORDS}:
        return files["exit-codes"]
    if _MEMORY_SIZE.fullmatch(topic):
        return files["which-model"]
    if topic in ALIASES:
        return files[ALIASES[topic]]
    return next((path for path in files.values() if topic in map(_slug, _headings(path))), None)


def mentions(word: str) -> list[str]:
    """Return the topics of the pages that contain a word most often, at most `MOST_MENTIONS`."""
    wanted = re.compile(rf"\b{re.escape(word)}", re.IGNORECASE)
    counts = {
        topic: len(wanted.findall(path.read_text(encoding="utf-8"))) for topic, path in topics().items()
    }
    found = sorted((topic for topic in counts if counts[topic]), key=lambda topic: -counts[topic])
    return found[:MOST_MENTIONS]


def heading(path: Path) -> str:
    """Return the title of a page."""
    return _headings(path)[0]


def with_commands_for_links(text: str) -> str:
    """Replace a page's links to other pages by commands, because a terminal cannot follow them."""
    return re.sub(r"\[([^\]]+)\]\((?!http)[^)]*?([\w-]+)\.md\)", r"\1 (`metal-gen help \2`)", text)


def _headings(path: Path) -> list[str]:
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"^#+ (.*)$", text, re.MULTILINE)


def _slug(text: str) -> str:
    return "-".join(re.findall(r"[a-z0-9]+", text.lower()))
