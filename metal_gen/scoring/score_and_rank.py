"""The library's calls: score one text, rank the texts of one task."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from metal_gen.config.settings import Settings
from metal_gen.config.sources import override_with_arguments
from metal_gen.device.extra_memory import limited_extra_memory
from metal_gen.engine.scoring.scorer import Scorer, ScoreRequest
from metal_gen.engine.scoring.sequences import OneSequence
from metal_gen.errors import UsageError
from metal_gen.generation.loading import TextModel
from metal_gen.scoring.ranking import Ranking, RankJob, RankOptions
from metal_gen.scoring.requests import PROMPT_SETTINGS, RequestMaker
from metal_gen.scoring.tasks import task_of
from metal_gen.scoring.text_score import ScoreSum, TextScore
from metal_gen.text.messages import Message


def score(
    model: TextModel,
    text: str | Iterable[str],
    *,
    prompt: str | Sequence[Message] | None = None,
    stride: int | None = None,
    per_token: bool = False,
    on_progress: Callable[[int], None] | None = None,
    **settings: Any,
) -> TextScore:
    """Compute how probable a text is.

    Args:
        model: Model from `load`. Its cache is cleared.
        text: A text, or its pieces in order. Without a prompt it may be longer than the cache: it is cut into
            windows of `max_seq_len` tokens.
        prompt: A user's message or a conversation that the text answers; None scores the text by itself,
            without a chat template.
        stride: Tokens that a window adds to the one before; None is half a window.
        per_token: Keep the log-probability of every token.
        on_progress: Called with the number of tokens scored, after each window.
        settings: Settings of the prompt by name, such as `raw`, `system`, `thinking`.

    Raises:
        MetalGenError: The text or a setting cannot be used, or prompt and text do not fit.
    """
    maker = _maker(model, settings)
    stride = maker.stride(stride)
    total = ScoreSum(keeps_tokens=per_token)
    pieces = _pieces(text)
    with _scorer(model) as scorer:
        if prompt is None:
            requests = maker.text(pieces, stride)
            for request in _computed(scorer, requests):
                total.add(request)
                if on_progress is not None:
                    on_progress(total.tokens)
            return total.score(requests.nbytes)
        encoded, answer = maker.prompt(prompt), "".join(pieces)
        for request in _computed(scorer, [maker.answer(encoded, answer)]):
            total.add(request)
        return total.score(len(answer.encode()), prompt_tokens=len(encoded.ids))


def rank(
    model: TextModel,
    *,
    prompt: str | Sequence[Message] | None = None,
    choices: Sequence[str] | None = None,
    query: str | None = None,
    documents: Sequence[str] | None = None,
    by: str | None = None,
    method: str | None = None,
    instruction: str | None = None,
    top: int | None = None,
    **settings: Any,
) -> Ranking:
    """Rank choices after a prompt, or documents for a query.

    Args:
        model: Model from `load`. Its cache is cleared.
        prompt: A user's message or a conversation that the choices answer.
        choices: Texts to rank. They are scored after the prompt, which is computed once.
        query: What is searched for.
        documents: Texts to rank by how well they fit the query.
        by: `sum` or `mean` of the log-probabilities of a choice's tokens; None is `sum`.
        method: `reranker` or `likelihood`; None takes the first for a model with "rerank" in its name.
        instruction: For a reranker, what makes a document fit; otherwise, what asks for a query.
        top: Most items of the ranking; None is all.
        settings: Settings of the prompt by name, such as `raw`, `system`, `thinking`.

    Raises:
        MetalGenError: A text or a setting cannot be used, or does not fit.
    """
    options = RankOptions.named(by, method, instruction, top)
    task = task_of(prompt, choices, query, documents)
    options.require_for(task)
    job = RankJob(_maker(model, settings), task, options)
    with _scorer(model) as scorer:
        for request in _computed(scorer, job.requests()):
            job.take(request)
    return job.ranking()


def _pieces(text: str | Iterable[str]) -> Iterable[str]:
    if isinstance(text, str):
        return [text]
    if isinstance(text, bytes | bytearray) or not isinstance(text, Iterable):
        raise UsageError(f"the text must be a text or its pieces, not {type(text).__name__}")
    return text


def _maker(model: TextModel, settings: dict[str, Any]) -> RequestMaker:
    for name, value in settings.items():
        if value is not None and name not in PROMPT_SETTINGS:
            raise UsageError(
                f"{name} has no effect on a score",
                f"the settings of a prompt are {', '.join(PROMPT_SETTINGS)}; give others to load(...)",
            )
    in_force: Settings = override_with_arguments(model.settings, settings)
    return RequestMaker.of(model.checkpoint, in_force, model.plan)


@contextmanager
def _scorer(model: TextModel) -> Iterator[Scorer]:
    """Open a scorer for one text at a time, with MLX limited to the planned memory."""
    plan, decoder = model.plan, model.decoder
    with limited_extra_memory(plan.ahead_bytes):
        sequence = OneSequence(decoder.model, decoder.cache, plan.chunk_size)
        yield Scorer(sequence, chunk_size=plan.chunk_size, block_rows=plan.logits_rows)


def _computed(scorer: Scorer, requests: Iterable[ScoreRequest]) -> Iterator[ScoreRequest]:
    """Yield the requests when they are complete."""
    for request in requests:
        scorer.begin(request)
        while not request.is_complete:
            scorer.step()
        yield request
