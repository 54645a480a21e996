"""Layers for multi-token prediction that have been checked, before their weights are read."""

from dataclasses import dataclass, replace

from metal_gen.cache.config import KVCacheConfig
from metal_gen.cache.kv_cache import KVCache
from metal_gen.checkpoint.mtp_weights import MtpWeights
from metal_gen.device.backend import compiles_steps
from metal_gen.models.transformer import Transformer
from metal_gen.speculation.mtp.source import MtpSource
from metal_gen.speculation.planned import GuessMemory


@dataclass(frozen=True)
class PlannedMtp:
    """Checked layers for multi-token prediction.

    Args:
        weights: Their weights, of which there are some.
        dtype: Dtype of computation.
        cache: Size of a cache of one layer, for one position.
        most_guesses: Most guesses in a pass.
        compile: Whether to compile guesses, as the setting says.
    """

    weights: MtpWeights
    dtype: str
    cache: KVCacheConfig
    most_guesses: int
    compile: str = "off"

    @property
    def memory(self) -> GuessMemory:
        """Memory of weights and cache."""
        return GuessMemory(
            fixed_bytes=self.weights.nbytes(self.dtype),
            bytes_per_token=self.cache.bytes_per_token,
            most_guesses=self.most_guesses,
            loading_bytes=self.weights.reading_bytes(self.dtype),
        )

    def load(self, target: Transformer, capacity: int, *, ahead_bytes: int | None = None) -> MtpSource:
        """Read the weights, and allocate a cache of so many positions."""
        cache = KVCache(replace(self.cache, max_seq_len=capacity))
        compiles = target.has_kernel and compiles_steps(self.compile, has_kernel=True)
        rows = self.most_guesses + 1 if compiles else None
        return MtpSource(target, self.weights.load(self.dtype), cache, compiled_rows=rows)
