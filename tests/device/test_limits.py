"""Tests limits on a process: control groups of both versions, and its address space."""

import resource

import pytest

from metal_gen.device import limits
from metal_gen.errors import DoesNotFitError

GIB = 2**30
# The value for no limit in version 1.
NO_LIMIT = 9223372036854771712


@pytest.fixture
def groups(monkeypatch, tmp_path):
    """Write control groups: the lines of /proc/self/cgroup, and files by their paths in the tree."""

    def write(own, **files):
        (tmp_path / "own").write_text("".join(f"{line}\n" for line in own), encoding="ascii")
        for place, text in files.items():
            path = tmp_path / "tree" / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n", encoding="ascii")

    monkeypatch.setattr(limits, "GROUPS", tmp_path / "tree")
    monkeypatch.setattr(limits, "OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(limits, "_meminfo_available_bytes", lambda: 64 * GIB)
    return write


def second(group, most, used=0, inactive=0):
    """Return the files of a group of version 2."""
    return {
        f"{group}memory.max": most,
        f"{group}memory.current": used,
        f"{group}memory.stat": f"anon 300\ninactive_file {inactive}",
    }


def first(group, most, used=0, inactive=0):
    """Return the files of a group of version 1."""
    return {
        f"memory/{group}memory.limit_in_bytes": most,
        f"memory/{group}memory.usage_in_bytes": used,
        f"memory/{group}memory.stat": f"inactive_file 1\ntotal_inactive_file {inactive}",
    }


@pytest.mark.parametrize(
    ("own", "files", "left"),
    [
        pytest.param(["0::/"], {}, 64 * GIB, id="none"),
        pytest.param(["0::/"], second("", 8 * GIB, GIB), 7 * GIB, id="a-container-of-version-2"),
        pytest.param(["0::/"], second("", "max", GIB), 64 * GIB, id="no-limit"),
        pytest.param(["0::/"], second("", 1000, 900, 600), 700, id="read-files-give-way"),
        pytest.param(["0::/"], second("", 1000, 2000), 1, id="more-than-all"),
        pytest.param(
            ["0::/system.slice/job.service"],
            {**second("system.slice/job.service/", 4 * GIB), **second("system.slice/", 6 * GIB)},
            4 * GIB,
            id="a-service",
        ),
        pytest.param(
            ["0::/system.slice/job.service"],
            {**second("system.slice/job.service/", "max"), **second("system.slice/", 6 * GIB, GIB)},
            5 * GIB,
            id="what-it-is-in",
        ),
        pytest.param(["0::/a"], second("b/", GIB), 64 * GIB, id="another-one"),
        pytest.param(["0::/../../host.slice"], second("", 3 * GIB), 3 * GIB, id="out-of-sight"),
        pytest.param(
            ["5:memory:/docker/abc", "0::/"], first("", 8 * GIB, GIB, 5), 7 * GIB + 5, id="version-1"
        ),
        pytest.param(["5:memory:/"], first("", NO_LIMIT), 64 * GIB, id="version-1-no-limit"),
        pytest.param(
            ["9:name=systemd:/", "5:cpu,memory:/slurm/job", "0::/"],
            {
                "cpu,memory/" + name.removeprefix("memory/"): text
                for name, text in first("slurm/", GIB).items()
            },
            GIB,
            id="version-1-nested",
        ),
        pytest.param(["0::/job"], second("unified/job/", 2 * GIB), 2 * GIB, id="both-versions"),
        pytest.param(["?", "::", "0::/"], second("", 3 * GIB), 3 * GIB, id="lines-of-another-kind"),
    ],
)
def test_the_lowest_limit_of_all_groups_counts(groups, own, files, left):
    groups(own, **files)
    assert limits.host_memory_bytes() == left


@pytest.mark.parametrize(
    ("own", "files", "cpus"),
    [
        (["0::/"], {}, None),
        (["0::/"], {"cpu.max": "max 100000"}, None),
        (["0::/"], {"cpu.max": "150000 100000"}, 2),
        (["0::/"], {"cpu.max": "50000 100000"}, 1),
        (["0::/"], {"cpu.max": "?"}, None),
        (["0::/"], {"cpu.max": "100000 0"}, None),
        (["0::/a/b"], {"a/b/cpu.max": "max 100000", "a/cpu.max": "300000 100000"}, 3),
        (["4:cpu,cpuacct:/job"], {"cpu,cpuacct/job/cpu.cfs_quota_us": 250000}, None),
        (
            ["4:cpu,cpuacct:/job"],
            {"cpu/job/cpu.cfs_quota_us": 250000, "cpu/job/cpu.cfs_period_us": 100000},
            3,
        ),
        (["4:cpu:/"], {"cpu/cpu.cfs_quota_us": -1, "cpu/cpu.cfs_period_us": 100000}, None),
    ],
)
def test_the_cpu_limit_of_a_group_is_read(groups, own, files, cpus):
    groups(own, **files)
    assert limits.control_group_cpus() == cpus


def test_no_proc_is_no_limit(monkeypatch, tmp_path):
    monkeypatch.setattr(limits, "GROUPS", tmp_path)
    monkeypatch.setattr(limits, "OWN_GROUPS", tmp_path / "missing")
    assert limits.control_group_cpus() is None
    assert limits.host_memory_bytes() > 0


@pytest.fixture
def address_space(monkeypatch):
    """Set the limit, of which a part is already used."""

    def limit(nbytes):
        monkeypatch.setattr(limits.resource, "getrlimit", lambda kind: (nbytes, nbytes))

    return limit


def test_a_limit_of_the_address_space_is_one_of_memory(groups, address_space):
    groups(["0::/"])
    address_space(resource.RLIM_INFINITY)
    assert limits.host_memory_bytes() == 64 * GIB
    limits.require_address_space()
    address_space(40 * GIB)
    assert 0 < limits.host_memory_bytes() < 40 * GIB
    limits.require_address_space()


def test_an_address_space_too_small_for_threads_is_refused(groups, address_space):
    groups(["0::/"])
    address_space(220_000_000)
    assert limits.host_memory_bytes() == 1
    with pytest.raises(
        DoesNotFitError, match=r"address space of a process is limited to 209\.8 MiB"
    ) as caught:
        limits.require_address_space()
    assert "ulimit -v" in caught.value.hint
