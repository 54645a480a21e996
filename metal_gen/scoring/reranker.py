"""Builds the prompts of Qwen3-Reranker, and computes its score from the logits of yes and no.

Source: the model card of Qwen/Qwen3-Reranker-0.6B.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from metal_gen.cache.common_prefix import common_prefix_length
from metal_gen.engine.scoring.scorer import ScoreRequest
from metal_gen.errors import UsageError
from metal_gen.scoring.requests import RequestMaker

INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
PREFIX = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the "
    'Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
YES, NO = "yes", "no"


def is_reranker(model: str | None) -> bool:
    """Return whether a model's name says that it is a reranker: nothing in its files does."""
    return model is not None and "rerank" in Path(model).name.lower()


class RerankerPrompt:
    """Asks whether documents fit a query.

    Args:
        maker: Makes requests for the model.
        query: What is searched for.
        instruction: What makes a document fit.

    Raises:
        UsageError: The model has no tokens for the answers.
    """

    def __init__(self, maker: RequestMaker, query: str, instruction: str) -> None:
        self._maker = maker
        tokenizer = maker.checkpoint.tokenizer
        answers = [tokenizer.id_of(answer) for answer in (YES, NO)]
        if None in answers:
            raise UsageError(
                f"this model is no reranker: it has no tokens {YES!r} and {NO!r}", "give --method likelihood"
            )
        self._answers = [token for token in answers if token is not None]
        self._asked = f"<Instruct>: {instruction}\n<Query>: {query}\n<Document>:"
        self._prefix = self._encode(PREFIX)
        self._suffix = self._encode(SUFFIX)
        self._shared = [*self._prefix, *self._encode(self._asked)]

    def requests(self, documents: Sequence[str]) -> Iterator[ScoreRequest]:
        """Yield the request for each document; its log-probabilities are those of yes and no.

        Raises:
            DoesNotFitError: A document does not fit the cache.
        """
        for number, document in enumerate(documents, 1):
            body = self._encode(f"{self._asked} {document}", f"document {number} with its query")
            ids = [*self._prefix, *body, *self._suffix]
            self._maker.require_room(len(ids), f"query and document {number}")
            begin = min(common_prefix_length(self._shared, ids), len(ids) - 1)
            own = ids[begin:]
            yield ScoreRequest(self._shared[:begin], own, self._answers, skipped=len(own) - 1)

    def _encode(self, text: str, what: str = "query") -> list[int]:
        return self._maker.checkpoint.tokenizer.encode(
            text, add_special_tokens=False, most_tokens=self._maker.capacity, what=what
        )


def probability_of_yes(request: ScoreRequest) -> float:
    """Return the probability of yes, if yes and no are the only answers."""
    yes, no = request.logprobs
    # With numbers below 0 alone, exp cannot overflow.
    larger = max(yes, no)
    yes, no = math.exp(yes - larger), math.exp(no - larger)
    return yes / (yes + no)
