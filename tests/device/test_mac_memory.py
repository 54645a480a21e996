"""What `vm_stat` of a Mac says, and what becomes of it where it is something else."""

import pytest

from metal_gen.device import mac_memory
from metal_gen.device.mac_memory import read_vm_stat, unused_memory_bytes

SAID = """Mach Virtual Memory Statistics: (page size of 16384 bytes)
Pages free:                               10000.
Pages active:                            350000.
Pages inactive:                             300.
Pages speculative:                           20.
Pages throttled:                              0.
Pages wired down:                         90000.
Pages purgeable:                              4.
"Translation faults":                 123456789.
Pages stored in compressor:              400000.
"""


def test_unused_memory_is_added_up():
    assert read_vm_stat(SAID) == 16384 * 10324


@pytest.mark.parametrize("text", ["", "vm_stat: not permitted", SAID.replace("Pages free", "Free")])
def test_something_else_says_nothing(text):
    assert read_vm_stat(text) is None


def test_a_program_that_is_not_there_says_nothing(monkeypatch):
    monkeypatch.setattr(mac_memory, "COMMAND", "/nowhere/vm_stat")
    assert unused_memory_bytes() is None
