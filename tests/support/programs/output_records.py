"""Makes records of a batch, and outputs with them."""

from metal_gen.batch.output.journal import Journal
from metal_gen.batch.records import encode_record

RUN = {"model": "tiny", "temperature": "0.5", "seed": 3}
GOOD = [{"id": number, "text": "é" * number} for number in range(4)]
BAD = {"id": 9, "error": {"code": "invalid_request", "line": 10, "message": "x"}}


def write(path, records, run=RUN, **options):
    """Make an output with these records."""
    with Journal.create(path, run, **options) as journal:
        for record in records:
            journal.append(record)


def joined(records):
    """Return the contents of an output with these records."""
    return b"".join(encode_record(record) for record in records)


def names(path):
    """Return the names in the folder of an output."""
    return sorted(each.name for each in path.parent.iterdir())
