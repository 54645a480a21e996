"""Keeps what was learned of depths for later runs: a single run is often over before it has learned much."""

from contextlib import suppress
from typing import Any

from metal_gen.files.kept_file import read_kept, write_kept
from metal_gen.speculation.depth import LearnedDepths
from metal_gen.speculation.kind_statistics import KindStatistics, Mean

NAME = "speculation.json"
FORMAT = 2
MOST_BYTES = 1 << 20
MOST_MODELS = 64
# Fewer passes are not worth a file.
FEWEST_PASSES = 64
# What an earlier run has learned counts as so many passes at most.
MOST_WEIGHT = 6.0


class KeptDepths(LearnedDepths):
    """Learned depths that begin with what earlier runs have learned of this model on this machine.

    Args:
        key: Name of the model, its dtype and the device.
        most: As for `Depths`.
        wanted: As for `Depths`.
    """

    def __init__(self, key: str, most: int, wanted: int | None = None) -> None:
        super().__init__(most, wanted)
        self._key = key
        # Whatever is wrong with the file, it is ignored, and replaced later.
        with suppress(ArithmeticError, LookupError, TypeError, ValueError, AttributeError):
            self.plain, self.kinds = _restored(_learned()[key])

    def end_text(self) -> None:
        """Write what was learned, if it is worth it and the file can be written."""
        super().end_text()
        if self.unsaved < FEWEST_PASSES:
            return
        self.unsaved = 0
        models = _learned()
        models.pop(self._key, None)
        models[self._key] = _stored(self.plain, self.kinds)
        newest = dict(list(models.items())[-MOST_MODELS:])
        write_kept(NAME, {"format": FORMAT, "models": newest})


def _learned() -> dict[str, Any]:
    """Return what earlier runs have learned, by model."""
    document = read_kept(NAME, MOST_BYTES)
    if isinstance(document, dict) and document.get("format") == FORMAT:
        models = document.get("models")
        return dict(models) if isinstance(models, dict) else {}
    return {}


def _stored(plain: Mean, kinds: dict[str, KindStatistics]) -> dict[str, Any]:
    return {
        "plain": _pair(plain),
        "kinds": {
            kind: {
                "costs": {str(depth): _pair(mean) for depth, mean in known.costs.items()},
                "right": [_pair(mean) for mean in known.right],
            }
            for kind, known in kinds.items()
        },
    }


def _restored(stored: Any) -> tuple[Mean, dict[str, KindStatistics]]:
    """Return what `_stored` was given.

    Raises:
        ValueError: A number is not one that could have been learned. Or any error of a wrong type.
    """
    kinds = {
        str(kind): KindStatistics(
            costs={int(depth): _mean(pair, least=1e-6, most=60.0) for depth, pair in known["costs"].items()},
            right=[_mean(pair, most=1.0) for pair in known["right"]],
        )
        for kind, known in stored["kinds"].items()
    }
    return _mean(stored["plain"], least=1e-6, most=60.0), kinds


def _pair(mean: Mean) -> list[float]:
    return [round(mean.value, 6), round(mean.count, 1)]


def _mean(pair: Any, *, least: float = 0.0, most: float) -> Mean:
    value, count = float(pair[0]), float(pair[1])
    if not (least <= value <= most and 0 < count < float("inf")):
        raise ValueError(f"no mean: {pair}")
    return Mean(value, min(count, MOST_WEIGHT))
