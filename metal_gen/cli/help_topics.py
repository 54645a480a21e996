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
    "eos end tokens quick-start getting-started tutorial examples example first-steps",
    "chat": "multiline several-lines paste new-line conversation conversations talk transcript "
    "transcripts interactive quit undo regenerate clear save-chat shortcuts "
    "keyboard-shortcuts editor",
    "batch": "openai bulk parallel concurrency folder-of-files batches batching cron launchd "
    "jsonl-rows queue slots cluster ray nightly crash-safe retry journal csv classify "
    "classification schedule excel spreadsheet folder folders directory background "
    "multi-gpu distributed",
    "models": "offline proxy mirror gated token access-token hf-token hf-home hf-endpoint login "
    "delete-model remove-model list-models download-location model-location disk-space "
    "model-files downloads download downloading hub huggingface gguf quantization "
    "quantizing bits 404 401 403 ssl certificate cache-dir disk-full resume-download "
    "4-bit 8-bit int4 q4-k-m",
    "which-model": "fit fits mac macs which choose apple metal m1 m2 m3 m4 recommended m5",
    "structured-output": "choices pattern patterns schemas json-schema constrained constraints guided lark "
    "regexp extract extraction pydantic",
    "tool-calls": "tool function functions function-calling tool-calling tool-use",
    "scores": "perplexity rerank reranker reranking ranking rankings scoring likelihood confidence",
    "prefixes": "prefix prefix-caching prompt-cache prompt-caching caching",
    "longer-texts": "yarn rope long-context long-texts context context-length context-window length",
    "adapters": "fine-tune finetune train training lora peft fine-tuning finetuning",
    "llm": "llm-plugin plugin shells bash zsh fish tab-completion man-pages",
    "switching": "mlx-lm llama-cli llama-cpp ollama other-programs migrate migration aliases",
    "benchmarks": "benchmark benchmarking",
    "troubleshooting": "loop loops repetition repetitions repeats repeating nonsense gibberish garbage ssh "
    "stutter problems problem faq hangs empty crash crashes error errors bug bugs help-me "
    "fails failure traceback debug freeze support contact",
    "memory": "cache kv-cache vram ram plan-memory oom out-of-memory size working-memory wired swap "
    "memory-pressure kernel-panic",
    "sampling": "samplers sampler strategy strategies filters creativity random nucleus",
    "reproducibility": "same-answer same-text different-answer seeds repeat deterministic determinism",
    "speed": "tokens-per-second tps too-slow threads cpu performance fast slow openblas faster "
    "latency first-token ttft startup",
    "speculation": "speculative speculative-decoding draft drafts mtp lookup guesses guess prompt-lookup "
    "multi-token-prediction",
    "settings": "env env-vars default-model change-model set-model configuration configure variables "
    "environment environment-variables toml defaults options",
    "commands": "command cli",
    "exit-codes": "exit exits exit-code exit-status status-codes code codes error-codes return-codes",
    "json": "jsonl json-output output-format jq records",
    "formats": "architectures families supported safetensors awq gptq fp8 mlx qwen models-supported "
    "supported-models llama mistral gemma deepseek qwen3 moe",
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
    short = "-".join(telling(topic.split("-")))
    tried = dict.fromkeys((topic, short, f"{short}s", short.removesuffix("s")))
    return next((page for name in tried if name and (page := _page_named(name)) is not None), None)


def telling(words: Sequence[str]) -> list[str]:
    """Leave out words that say nothing about a topic."""
    return [word for word in words if word.lower() not in _FILLERS]


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


def mentions(words: Sequence[str], *, whole: bool = False) -> list[str]:
    """Return the topics of the pages that contain all words, at most `MOST_MENTIONS`.

    Reference pages come last; pages with more occurrences come first.

    Args:
        words: The words, in any order.
        whole: Whether they must be whole words of the page, not only beginnings.
    """
    end = r"\b" if whole else ""
    wanted = [re.compile(rf"\b{re.escape(word)}{end}", re.IGNORECASE) for word in telling(words)]
    found = []
    for topic, path in topics().items():
        text = path.read_text(encoding="utf-8")
        if count := min((len(word.findall(text)) for word in wanted), default=0):
            found.append((path.parent.name == "reference", -count, topic))
    return [topic for _, _, topic in sorted(found)[:MOST_MENTIONS]]


def heading(path: Path) -> str:
    """Return the title of a page."""
    return _headings(path)[0]


def with_commands_for_links(text: str) -> str:
    """Replace a page's links to other pages by commands, because a terminal cannot follow them."""
    page = r"\[([^\]]+)\]\((?!http)[^)]*?([\w-]+)\.md\)"
    # A link that is all that is in brackets stands there as the command alone.
    text = re.sub(rf"\({page}\)", r"(`metal-gen help \2`)", text)
    return re.sub(page, r"\1 (`metal-gen help \2`)", text)


def _headings(path: Path) -> list[str]:
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"^#+ (.*)$", text, re.MULTILINE)


def _slug(text: str) -> str:
    return "-".join(re.findall(r"[a-z0-9]+", text.lower()))
