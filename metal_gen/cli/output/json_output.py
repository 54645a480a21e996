"""`--json` and `--jsonl`: a text as one object, or as one event per piece; see `schemas/output.json`."""

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Self

from metal_gen.cli.output.piece_output import TextSink
from metal_gen.generation.record import Record, encode_json, generation_record, piece_record

if TYPE_CHECKING:
    from metal_gen.generation.loading import TextModel
    from metal_gen.generation.pieces import Generation, Piece


class JsonOutput:
    """Writes a run as JSON; an interrupted run is written as far as it got.

    Args:
        sink: Receives the lines.
        model: The model that generates.
        streams: Write an event per piece, and the whole object as the last event.
        shows: Whether the events are visible as they are written.
    """

    def __init__(self, sink: TextSink, model: "TextModel", *, streams: bool, shows: bool) -> None:
        self._sink = sink
        self._model = model
        self._streams = streams
        self._shows = shows
        self._pieces: list[Piece] = []

    def waits_for(self, piece: "Piece") -> str | None:
        """Return the text of a progress bar while this piece is not visible; None if it is."""
        return None if self._streams and self._shows else "generating"

    def add(self, piece: "Piece") -> None:
        """Add the next piece."""
        self._pieces.append(piece)
        if self._streams:
            self._write({"event": "reasoning" if piece.is_thinking else "text", **piece_record(piece)})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        """Write the whole object, unless an error ended the run."""
        is_error = kind is not None and issubclass(kind, Exception)
        if self._pieces and not is_error:
            whole = self._whole()
            self._write({"event": "end", **whole} if self._streams else whole)

    def _write(self, record: Record) -> None:
        self._sink.write_text(encode_json(record) + "\n")

    def _whole(self) -> Record:
        from metal_gen.generation.pieces import join

        groups = groupby(self._pieces, key=lambda piece: piece.sample)
        return describe_run(self._model, [join(list(pieces)) for _, pieces in groups])


def describe_run(model: "TextModel", generations: Sequence["Generation"]) -> Record:
    """Return the object of `--json`.

    Args:
        model: The model that generated the texts.
        generations: The texts, at least one; with `samples` above 1 they are in a list.
    """
    from metal_gen import __version__
    from metal_gen.checkpoint.bundled import BUNDLED_NAME
    from metal_gen.device.backend import mlx_version

    statistics = generations[-1].statistics
    texts = [_text(generation) for generation in generations]
    completion_tokens = sum(len(generation.token_ids) for generation in generations)
    adapters = [adapter.record for adapter in model.checkpoint.weights.adapters]
    record: Record = {
        "model": model.settings.model or BUNDLED_NAME,
        "adapters": adapters,
        "quantize": model.settings.quantize,
    }
    if model.settings.samples > 1:
        record["texts"] = texts
    else:
        record.update(texts[0])
        del record["completion_tokens"]
    return {
        **record,
        "usage": {
            "prompt_tokens": statistics.prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": statistics.prompt_tokens + completion_tokens,
            "cached_tokens": generations[0].statistics.stored_tokens,
        },
        "memory": {
            "cache_tokens": statistics.cache_tokens,
            "max_seq_len": model.plan.cache.max_seq_len,
            "chunk_size": model.plan.chunk_size,
            "peak_memory_bytes": statistics.peak_memory_bytes,
        },
        "seed": statistics.seed,
        "dtype": model.plan.dtype,
        "versions": {"metal_gen": __version__, "mlx": mlx_version()},
    }


def _text(generation: "Generation") -> Record:
    statistics = generation.statistics
    record = generation_record(generation)
    logprobs = record.pop("logprobs", None)
    record["finish_detail"] = generation.finish.value
    if generation.stop_text is not None:
        record["stop_text"] = generation.stop_text
    record["timing"] = {
        "ttft_s": statistics.ttft_s,
        "prefill_tps": statistics.prefill_tps,
        "decode_tps": statistics.decode_tps or None,
    }
    return record if logprobs is None else {**record, "logprobs": logprobs}
