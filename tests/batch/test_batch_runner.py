"""Tests the loop over rows: a row runs when it has arrived, before later ones do, and its end is reported."""

from metal_gen.batch.executor import RowResult
from metal_gen.batch.input.rows import BatchRow, RowForm, unreadable
from metal_gen.batch.output.index import IdIndex
from metal_gen.batch.output.repair import FoundRecords
from metal_gen.batch.runner import run_rows


def a_row(number):
    return BatchRow(number, number, f"int:{number}", RowForm.NATIVE, "hi", {}, {})


class Records:
    """A journal in memory."""

    def __init__(self):
        self.records = []
        self.finished = IdIndex()
        self.found = FoundRecords()

    def append(self, record):
        self.records.append(record)


class Slots:
    """An executor whose rows take one step per ten of their number; the others take one."""

    occupancy = 1.0

    def __init__(self, slots):
        self.slots = slots
        self.passes_left = {}

    @property
    def slots_in_use(self):
        return len(self.passes_left)

    @property
    def has_room(self):
        return len(self.passes_left) < self.slots

    @property
    def is_idle(self):
        return not self.passes_left

    def begin(self, row, seed):
        self.passes_left[row.number] = max(1, row.number // 10)

    def advance(self):
        for number in self.passes_left:
            self.passes_left[number] -= 1
        ended = [number for number, left in self.passes_left.items() if left == 0]
        for number in ended:
            del self.passes_left[number]
        return [(number, RowResult({"id": number}, 1, 1, ())) for number in ended]


def run(rows, slots, *, on_idle=lambda: None, on_failure=lambda row: None, **options):
    """Return the ids of the records, in the order in which they were written."""
    journal = Records()
    run_rows(
        iter(rows(journal)),
        Slots(slots),
        journal,
        seed=1,
        on_idle=on_idle,
        on_step=lambda counts: None,
        on_notice=lambda line: None,
        on_failure=on_failure,
        **options,
    )
    journal.finished.close()
    return [record["id"] for record in journal.records]


def test_a_producer_that_waits_for_each_record_gets_it():
    def asking(journal):
        for number in range(1, 6):
            yield a_row(number)
            while len(journal.records) < number:
                yield None

    for slots in (1, 2, 8):
        for ordered in (False, True):
            assert run(asking, slots, ordered=ordered) == [1, 2, 3, 4, 5]


def test_a_row_that_comes_while_another_is_under_way_does_not_wait_for_it():
    def asking(journal):
        yield a_row(90)
        yield None
        for number in (1, 2):
            yield a_row(number)
            while number not in [record["id"] for record in journal.records]:
                yield None

    assert run(asking, 2) == [1, 2, 90]


def test_a_bad_row_is_answered_while_another_is_under_way():
    def asking(journal):
        yield a_row(90)
        yield unreadable(2, "the line is not JSON")
        while not journal.records:
            yield None

    assert run(asking, 2) == [None, 90]


def test_it_waits_only_where_there_is_nothing_to_do():
    waits = []

    def late(journal):
        yield None
        yield a_row(50)
        yield None
        yield None
        yield a_row(1)
        yield None

    assert run(late, 2, on_idle=lambda: waits.append(1)) == [1, 50]
    assert len(waits) == 1


def test_failed_rows_are_reported_once_their_records_are_written():
    told = []

    def rows(journal):
        yield a_row(1)
        yield unreadable(2, "the line is not JSON")
        told.append(len(journal.records))

    run(rows, 1, on_failure=lambda row: told.append(row.reason))
    assert told == ["the line is not JSON", 2]
