"""The records of scores and rankings."""

import math

from metal_gen.batch.token_texts import TokenTexts
from metal_gen.generation.record import Record, finite
from metal_gen.scoring.ranking import Method, Ranked, Ranking
from metal_gen.scoring.text_score import TextScore

CHOICE_METHODS = (Method.SUM, Method.MEAN)


def score_record(score: TextScore, tokens: TokenTexts | None) -> Record:
    """Return the fields of a score.

    Args:
        score: Score of a text.
        tokens: Names the tokens, if each is listed.
    """
    perplexity = score.perplexity
    record: Record = {
        "tokens": score.tokens,
        "logprob": score.logprob,
        "logprob_per_token": score.logprob_per_token,
        "perplexity": perplexity if math.isfinite(perplexity) else None,
        "bytes": score.nbytes,
        "bits_per_byte": score.bits_per_byte,
        "prompt_tokens": score.prompt_tokens,
        "windows": score.windows,
    }
    if tokens is not None:
        pairs = zip(score.token_ids, score.logprobs, strict=True)
        record["token_logprobs"] = [
            {"token_id": id, "token": tokens.text_of(id), "logprob": finite(logprob)} for id, logprob in pairs
        ]
    return record


def ranking_record(ranking: Ranking) -> Record:
    """Return the fields of a ranking."""
    is_of_choices = ranking.method in CHOICE_METHODS
    name = "choice" if is_of_choices else "document"
    counts: Record = {"prompt_tokens": ranking.prompt_tokens} if is_of_choices else {}
    return {
        "method": ranking.method.value,
        "ranking": [_item_record(item, name) for item in ranking.items],
        **counts,
    }


def _item_record(item: Ranked, name: str) -> Record:
    record: Record = {"index": item.index, name: item.text, "score": item.score}
    if item.logprob is None:
        return record
    return {
        **record,
        "tokens": item.tokens,
        "logprob": item.logprob,
        "logprob_per_token": item.logprob / item.tokens,
    }
