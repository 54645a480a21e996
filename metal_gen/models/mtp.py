"""The layers for multi-token prediction (mtp) of Qwen3-Next and Qwen3.5: they guess tokens further ahead.

A transformer's state at a position predicts the next token. These layers join that state with the embedding
of this next token, and give a state that predicts the token after it. Repeated on their own states, they
guess further still. Embedding and head are the model's own.

Source: `qwen3_next_mtp.py` and `qwen3_5_mtp.py` of vLLM.

Axes: R rows.
"""

from dataclasses import dataclass

import mlx.core as mx

from metal_gen.cache.kv_cache import KVCache
from metal_gen.models.attention import Part, Step
from metal_gen.models.kernels.next_attention import NextTokens
from metal_gen.models.layers import Linear, RMSNorm
from metal_gen.models.rope import Rope
from metal_gen.models.transformer import DecoderLayer, Transformer

# Name of the matrix that joins an embedding and a state.
MTP_JOINING = "mtp.fc"


@dataclass(frozen=True)
class MtpHeads:
    """The layers for multi-token prediction, with their weights.

    Args:
        embedding_norm: Norm of the embeddings.
        hidden_norm: Norm of the states.
        joining: Maps both, in this order, (R, 2 * hidden), to (R, hidden).
        layer: Layer with full attention.
        norm: Norm of the result.
        rope: Rotary embedding of the layer.
    """

    embedding_norm: RMSNorm
    hidden_norm: RMSNorm
    joining: Linear
    layer: DecoderLayer
    norm: RMSNorm
    rope: Rope

    def __call__(self, model: Transformer, tokens: mx.array, hidden: mx.array, cache: KVCache) -> mx.array:
        """Run successive positions of one text, and add them to the heads' own cache.

        Args:
            model: Model that the heads belong to.
            tokens: Token after each position, (R,).
            hidden: States after the final norm of the model, or of a guess after the norm of the heads,
                (R, hidden).
            cache: Cache of one layer.

        Returns:
            Normalized states, (R, hidden), that predict the token after the one given.

        Raises:
            CacheOverflowError: The positions do not fit. Nothing was written.
        """
        length = len(tokens)
        cache.settle()
        cache.claim(length)
        step = Step(
            cache=cache,
            batch=1,
            length=length,
            offset=cache.start,
            periods=self.rope.periods(cache.position),
            parts=[Part.causal(cache.start, length, None)],
        )
        return self._run(model, tokens, hidden, step)

    def by_kernel(
        self,
        model: Transformer,
        tokens: mx.array,
        hidden: mx.array,
        cache: KVCache,
        nexts: NextTokens,
        periods: mx.array,
    ) -> mx.array:
        """Do the same with the kernel for attention, which claims no positions of the cache.

        Args:
            model: Model that the heads belong to.
            tokens: Token after each position, (R,).
            hidden: States, (R, hidden), as for a call.
            cache: Cache of one layer.
            nexts: Where the positions go.
            periods: Periods of the rotary embedding.

        Returns:
            Normalized states, (R, hidden), as a call gives.
        """
        step = Step(
            cache=cache, batch=1, length=len(tokens), offset=0, periods=periods, parts=(), nexts=nexts
        )
        return self._run(model, tokens, hidden, step)

    def _run(self, model: Transformer, tokens: mx.array, hidden: mx.array, step: Step) -> mx.array:
        embedded = self.embedding_norm(model.embedding.take(tokens))
        rows = self.joining(mx.concatenate([embedded, self.hidden_norm(hidden)], axis=-1))
        _, normed = self.layer(rows, self.layer.attention_norm(rows), 0, step, self.norm)
        return normed
