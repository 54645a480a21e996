"""The kinds of work that a batch does with rows: how it reads and how it computes them."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from metal_gen.batch.executor import RowExecutor
from metal_gen.batch.input.reading import ByteSource, read_rows
from metal_gen.batch.input.rows import BatchRow, Row, RowError
from metal_gen.batch.output.run_file import Value

if TYPE_CHECKING:
    from metal_gen.generation.loading import PreparedModel, TextModel


class RowWork(Protocol):
    """A kind of work. It can be pickled and sent to another process."""

    @property
    def command(self) -> str:
        """Name of the command that does it."""

    @property
    def scores(self) -> bool:
        """Whether texts are scored rather than generated."""

    def read(self, source: ByteSource) -> Iterator[Row | RowError | None]:
        """Read rows, as `parsed_rows` does."""

    def open(self, model: "TextModel") -> AbstractContextManager[RowExecutor]:
        """Open the executor of the rows that `read` yields."""

    def mark(self, prepared: "PreparedModel") -> dict[str, Value]:
        """Return the values that records depend on, apart from the rows.

        Raises:
            MetalGenError: A file of the model cannot be read.
        """


@dataclass(frozen=True)
class GenerateRows:
    """Generate the text of every row.

    Args:
        field: As for `parse_row`.
        keep_fields: As for `parse_row`.
    """

    field: str | None = None
    keep_fields: bool = False
    scores: bool = False
    command: str = "batch"

    def read(self, source: ByteSource) -> Iterator[BatchRow | RowError | None]:
        """See `RowWork`."""
        return read_rows(source, field=self.field, keep_fields=self.keep_fields)

    def open(self, model: "TextModel") -> AbstractContextManager[RowExecutor]:
        """See `RowWork`."""
        from metal_gen.batch.slot_rows import slot_rows

        return slot_rows(model)

    def mark(self, prepared: "PreparedModel") -> dict[str, Value]:
        """See `RowWork`."""
        from metal_gen.batch.output.fingerprint import fingerprint

        kept: dict[str, Value] = {"keep_fields": "True"} if self.keep_fields else {}
        return {**fingerprint(prepared, self.field), **kept}
