"""Text generation with Qwen checkpoints on MLX, with memory fixed before generation starts.

    import metal_gen

    model = metal_gen.load("Qwen/Qwen3-0.6B", max_seq_len=4096)
    for piece in metal_gen.stream_generate(model, "Why is the sky blue?"):
        print(piece.text, end="", flush=True)

Importing the package imports nothing else; names are loaded on first use.
"""

from importlib import import_module

__version__ = "0.1.0"

# As in `typing`, whose import takes longer than all that comes before Ctrl-C is handled.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from metal_gen.cache.config import KVCacheConfig
    from metal_gen.cache.kv_cache import KVCache
    from metal_gen.constraints.constraint import Constraint
    from metal_gen.engine.stopping import FinishDetail, FinishReason
    from metal_gen.errors import MetalGenError
    from metal_gen.generation.conversation import Conversation
    from metal_gen.generation.loading import TextModel
    from metal_gen.generation.pieces import Generation, Piece, Statistics
    from metal_gen.generation.text_generation import generate, generate_samples, load, stream_generate
    from metal_gen.sampling.sampler import sample_token
    from metal_gen.sampling.strategy import Greedy, SamplingStrategy, Temperature, TopK, TopP
    from metal_gen.scoring.ranking import Ranked, Ranking
    from metal_gen.scoring.score_and_rank import rank, score
    from metal_gen.scoring.text_score import TextScore

_MODULES = {
    "Constraint": "metal_gen.constraints.constraint",
    "Conversation": "metal_gen.generation.conversation",
    "FinishDetail": "metal_gen.engine.stopping",
    "FinishReason": "metal_gen.engine.stopping",
    "Generation": "metal_gen.generation.pieces",
    "Greedy": "metal_gen.sampling.strategy",
    "KVCache": "metal_gen.cache.kv_cache",
    "KVCacheConfig": "metal_gen.cache.config",
    "MetalGenError": "metal_gen.errors",
    "Piece": "metal_gen.generation.pieces",
    "Ranked": "metal_gen.scoring.ranking",
    "Ranking": "metal_gen.scoring.ranking",
    "SamplingStrategy": "metal_gen.sampling.strategy",
    "Statistics": "metal_gen.generation.pieces",
    "Temperature": "metal_gen.sampling.strategy",
    "TextModel": "metal_gen.generation.loading",
    "TextScore": "metal_gen.scoring.text_score",
    "TopK": "metal_gen.sampling.strategy",
    "TopP": "metal_gen.sampling.strategy",
    "generate": "metal_gen.generation.text_generation",
    "generate_samples": "metal_gen.generation.text_generation",
    "load": "metal_gen.generation.text_generation",
    "rank": "metal_gen.scoring.score_and_rank",
    "sample_token": "metal_gen.sampling.sampler",
    "score": "metal_gen.scoring.score_and_rank",
    "stream_generate": "metal_gen.generation.text_generation",
}

__all__ = [
    "Constraint",
    "Conversation",
    "FinishDetail",
    "FinishReason",
    "Generation",
    "Greedy",
    "KVCache",
    "KVCacheConfig",
    "MetalGenError",
    "Piece",
    "Ranked",
    "Ranking",
    "SamplingStrategy",
    "Statistics",
    "Temperature",
    "TextModel",
    "TextScore",
    "TopK",
    "TopP",
    "generate",
    "generate_samples",
    "load",
    "rank",
    "sample_token",
    "score",
    "stream_generate",
]


def __getattr__(name: str) -> "Any":
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from metal_gen.device.backend import require_mlx

    require_mlx()
    return getattr(import_module(_MODULES[name]), name)
