"""Ranges of the numbers for sampling and for the length of a text."""

from metal_gen.config.checks import Biases, Real, Whole
from metal_gen.config.switched import Switched

TEMPERATURE = Real(0.0, 1000.0)
TOP_K = Switched(1, off=(0, -1), meaning="for all tokens")
TOP_P = Real(0.0, 1.0, above=True)
MIN_P = Real(0.0, 1.0)
REPETITION_PENALTY = Real(0.01, 100.0)
REPETITION_WINDOW = Switched(1, off=(-1,), meaning="for the whole text")
PENALTY = Real(-2.0, 2.0)
BIAS = Real(-1e4, 1e4)
LOGIT_BIAS = Biases(BIAS)
TOKEN_ID = Whole(0)
SEED = Switched(0, 2**64 - 1, off=(-1,), meaning="for a new one each run")
MAX_TOKENS = Switched(1, off=(-1,), meaning="for no limit")
MIN_TOKENS = Whole(0)
TOP_LOGPROBS = Whole(0, 100)
SAMPLES = Whole(1, 10_000)
