"""The cost of a constraint: decode speed with and without one, and the time to find the allowed tokens."""

import json
import statistics
import time
from collections.abc import Sequence

from metal_gen.bench.measurement import METAL_GEN, Measurement, Trial, Unit
from metal_gen.bench.request import CONSTRAINT
from metal_gen.bench.runners.engine import EngineRunner
from metal_gen.constraints.constraint import Constraint
from metal_gen.constraints.matcher import GrammarMatcher
from metal_gen.constraints.token_table import TokenTable
from metal_gen.engine.stopping import FinishDetail
from metal_gen.errors import MetalGenError
from metal_gen.sampling.allowed import Allowed
from metal_gen.text.tokenizer import Tokenizer

NEW_TOKENS = 64
FIELDS = ("name", "age", "kind", "active", "city")
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 4, "maxLength": 24},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "kind": {"enum": ["person", "company", "other"]},
        "active": {"type": "boolean"},
        "city": {"type": "string", "maxLength": 16},
    },
    "required": [*FIELDS],
    "additionalProperties": False,
}
# Both are long enough for any number of tokens. Of the string, none is forced.
CONSTRAINTS = {
    "string": Constraint.schema({"type": "string", "minLength": 1_000_000}),
    "document": Constraint.schema({"type": "array", "minItems": 10_000, "items": PERSON}),
}
# A model of random weights draws strings of any characters, up to their bounds. People write them like this.
WRITTEN = [
    ("Ada Lovelace", 36, "person", False, "London"),
    ("Northern Timber", 48, "company", True, "Trondheim"),
    ("Maria Skłodowska", 66, "person", False, "Warszawa"),
    ("Harbour Café", 7, "other", True, "Bristol"),
    ("Sun Yat Shipping", 112, "company", True, "広州"),
    ("José Ortega", 29, "person", True, "Sevilla"),
    ("Old Mill Bakery", 150, "company", False, "Delft"),
    ("Grace Hopper", 85, "person", False, "New York"),
]


class TimedMatcher(GrammarMatcher):
    """Notes how long it takes to find the allowed tokens, in whichever thread, in seconds."""

    def __init__(self, table: TokenTable, constraint: Constraint) -> None:
        self.seconds: list[float] = []
        super().__init__(table, constraint)

    def find_bits(self) -> bytes:
        """See `GrammarMatcher`."""
        begin = time.perf_counter()
        bits = super().find_bits()
        self.seconds.append(time.perf_counter() - begin)
        return bits


class TimedGuide:
    """Guides a text through a grammar.

    Attributes:
        matcher: Its place within the grammar.
        waits: How long the decode loop was held up by each mask, in seconds.
    """

    def __init__(self, table: TokenTable, constraint: Constraint) -> None:
        self.matcher = TimedMatcher(table, constraint)
        self.waits: list[float] = []
        self._asking = 0.0

    @property
    def error(self) -> MetalGenError | None:
        """Why the matcher allows no token, if it has failed."""
        return self.matcher.error

    def accept(self, token: int) -> FinishDetail | None:
        """Record a token."""
        self.matcher.accept(token)
        return None

    def take_back(self, count: int) -> None:
        """Take back the last tokens."""
        self.matcher.take_back(count)

    def forced(self) -> Sequence[int]:
        """Return the tokens that must come next."""
        return self.matcher.forced()

    def prepare(self) -> None:
        """Begin to find the tokens that may come next."""
        begin = time.perf_counter()
        self.matcher.prepare()
        self._asking = time.perf_counter() - begin

    def allowed(self) -> Allowed:
        """Return the tokens that may come next."""
        begin = time.perf_counter()
        bits = self.matcher.allowed()
        self.waits.append(self._asking + time.perf_counter() - begin)
        return Allowed(bits)


def constraint_trials(
    runner: EngineRunner, table: TokenTable, tokenizer: Tokenizer, depth: int, count: int
) -> list[Trial]:
    """Return trials without and with constraints, to be run in turn, and one of a document that was written.

    Args:
        runner: Its cache must hold the depth and the new tokens.
        table: Tokens of the model.
        tokenizer: Tokenizer of the model.
        depth: Number of tokens before the new ones.
        count: Number of new tokens, at least two.
    """
    table.build()
    free_tps = 0.0

    def decode_free() -> tuple[float, ...]:
        nonlocal free_tps
        free_tps = runner.decode(depth, count).decode_tps
        return (free_tps,)

    def figure(name: str, unit: Unit) -> Measurement:
        return Measurement(CONSTRAINT, name, unit, METAL_GEN, {"depth": depth})

    def constrained(name: str) -> Trial:
        def decode() -> tuple[float, ...]:
            guide, tps = _warm_run(runner, table, CONSTRAINTS[name], depth, count)
            # All tokens of a very short document are forced, and nobody waits for a mask.
            both = (guide.matcher.seconds, guide.waits)
            return (tps, tps / free_tps, *(1e6 * statistics.median(each or [0.0]) for each in both))

        figures = (
            figure(f"{name}_tps", Unit.TOKENS_PER_SECOND),
            figure(f"{name}_of_free", Unit.RATIO),
            figure(f"{name}_mask_us", Unit.MICROSECONDS),
            figure(f"{name}_mask_wait_us", Unit.MICROSECONDS),
        )
        return Trial(figures, decode)

    written = written_tokens(tokenizer)

    def walk() -> tuple[float, ...]:
        seconds = mask_seconds(table, written)
        return (1e6 * statistics.median(seconds),)

    return [
        Trial((figure("free_tps", Unit.TOKENS_PER_SECOND),), decode_free),
        *(constrained(name) for name in CONSTRAINTS),
        Trial((Measurement(CONSTRAINT, "written_mask_us", Unit.MICROSECONDS, METAL_GEN),), walk),
    ]


def written_tokens(tokenizer: Tokenizer) -> list[int]:
    """Return the tokens of a list of objects of the document's schema, as people write them."""
    people = [dict(zip(FIELDS, person, strict=True)) for person in WRITTEN]
    text = json.dumps(people, ensure_ascii=False, separators=(",", ":"))
    return tokenizer.encode(text.removesuffix("]"), add_special_tokens=False)


def mask_seconds(table: TokenTable, tokens: Sequence[int]) -> list[float]:
    """Return how long it takes to find the allowed tokens, in seconds, for each token that is not forced."""
    matcher = TimedMatcher(table, CONSTRAINTS["document"])
    matcher.seconds.clear()
    for token in tokens:
        if not matcher.forced():
            matcher.find_bits()
        matcher.accept(token)
    if matcher.error is not None:
        raise matcher.error
    return matcher.seconds


def _warm_run(
    runner: EngineRunner, table: TokenTable, constraint: Constraint, depth: int, count: int
) -> tuple[TimedGuide, float]:
    """Decode until nothing had to be compiled. Return the guide of the last text, and tokens per second."""
    while True:
        compiled, guide = runner.decoder.compiled_count, TimedGuide(table, constraint)
        tps = runner.decode_guided(depth, count, guide).decode_tps
        if runner.decoder.compiled_count == compiled:
            return guide, tps
