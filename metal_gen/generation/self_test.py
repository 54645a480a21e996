"""Generates a known text, to check that this machine computes the same as others.

The bundled model continues a story of its own kind, where each token is fifty times as probable as any
other. No backend's rounding changes it.
"""

import math
import time
from dataclasses import dataclass

from metal_gen.generation.text_generation import load, stream_generate
from metal_gen.sampling.strategy import Greedy

STORY = (
    '"Where is my violin?" whispered the rabbit. Just then, a kangaroo named Roo bounced by. '
    '"What is the matter?" laughed the kangaroo. "I cannot'
)
REST = ' find my violin," whispered the rabbit with a sniff. "I need it to play at every dance." "'
REST_TOKENS = 22
DTYPE = "float32"


@dataclass(frozen=True)
class SelfTest:
    """The result of the self test.

    Attributes:
        text: Text that the model generated.
        least_logprob: Log-probability of the least probable token; NaN if any is NaN.
        load_s: Seconds to read the model.
        ttft_s: Seconds from the prompt to the first new token.
        decode_tps: Tokens per second after the first token.
    """

    text: str
    least_logprob: float
    load_s: float
    ttft_s: float
    decode_tps: float

    @property
    def passed(self) -> bool:
        """Whether the text is the known one and its log-probabilities are finite."""
        return self.text == REST and math.isfinite(self.least_logprob)


def run_self_test() -> SelfTest:
    """Load the bundled model and generate the known text."""
    begin_s = time.perf_counter()
    model = load(model_dtype=DTYPE)
    load_s = time.perf_counter() - begin_s
    pieces = list(
        stream_generate(model, STORY, raw=True, strategy=Greedy(), max_tokens=REST_TOKENS, logprobs=0)
    )
    logprobs = [piece.logprobs.model_logprob for piece in pieces if piece.logprobs is not None]
    return SelfTest(
        text="".join(piece.text for piece in pieces),
        least_logprob=math.nan if any(map(math.isnan, logprobs)) else min(logprobs),
        load_s=load_s,
        ttft_s=pieces[-1].statistics.ttft_s,
        decode_tps=pieces[-1].statistics.decode_tps,
    )
