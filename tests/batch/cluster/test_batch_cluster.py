"""Tests rows on cluster nodes: sent, reported, run elsewhere if a node is lost; with fakes and with Ray."""

import json
import signal
import time
from collections import Counter

import pytest
from cli_process import ROOT, run_cli, start_cli

from metal_gen.batch.cluster.protocol import BlockReport, NodeLost, NodeReady, NodeRefusal
from metal_gen.batch.cluster.rows import IN_HAND_PER_SLOT, MOST_LOSSES, ClusterLostError, ClusterRows
from metal_gen.batch.executor import RowResult
from metal_gen.batch.input.rows import BatchRow, RowError, RowForm
from metal_gen.errors import UsageError

SEED = ("--seed", "7", "-n", "16")


def a_row(number):
    return BatchRow(number, number, f"int:{number}", RowForm.NATIVE, "hi", {}, {})


class FakeCluster:
    """Nodes that answer each call with all their rows, except for the failures below.

    Args:
        nodes: Number of slots by node name; 0 refuses.
        lost_after: Number of calls that a node answers before it is lost, by node name.
        poison: Rows that take their node down.
        comes_back: Whether a lost node can be started again.
    """

    def __init__(self, nodes, *, lost_after=None, poison=(), comes_back=True):
        self.nodes = dict(nodes)
        self.lost_after = dict(lost_after or {})
        self.poison = set(poison)
        self.comes_back = comes_back
        self.running = set()
        self.said = []
        self.given = Counter()

    def start_workers(self):
        started = [name for name in self.nodes if name not in self.running]
        for name in started:
            self.running.add(name)
            slots = self.nodes[name]
            self.said.append((name, NodeReady(slots, "fake") if slots else NodeRefusal("its mlx is older")))
        return started

    def send(self, node, rows):
        numbers = [row.number for row, _ in rows]
        self.given.update(numbers)
        if rows:
            self.lost_after[node] = self.lost_after.get(node, 10**6) - 1
        if self.lost_after.get(node, 1) < 0 or self.poison & set(numbers):
            self.said.append((node, NodeLost("it was killed")))
            return
        outcomes = [(number, RowResult({"id": number}, 1, 1, ())) for number in numbers]
        self.said.append((node, BlockReport(outcomes, len(rows), 1.0)))

    def receive(self, timeout_s):
        said, self.said = self.said, []
        messages, over = [], set()
        for name, message in said:
            if name in over:
                continue
            messages.append((name, message))
            if isinstance(message, NodeLost | NodeRefusal):
                over.add(name)
                self.lost_after.pop(name, None)
                if isinstance(message, NodeLost) and self.comes_back:
                    self.running.discard(name)
        return messages


def run(cluster, count):
    """Return outcomes by row, and the messages about nodes."""
    news, outcomes = [], {}
    rows = ClusterRows(cluster, on_news=news.append)
    pending = iter(range(1, count + 1))
    more = True
    for _ in range(10 * count + 100):
        while more and rows.has_room:
            number = next(pending, None)
            more = number is not None
            if more:
                rows.begin(a_row(number), seed=number)
        if rows.is_idle and not more:
            return outcomes, news
        for number, outcome in rows.advance():
            assert number not in outcomes
            outcomes[number] = outcome
    raise AssertionError("it does not end")


def test_every_row_is_run_once_where_nothing_happens():
    cluster = FakeCluster({"a": 2, "b": 3})
    outcomes, _ = run(cluster, 50)
    assert sorted(outcomes) == list(range(1, 51))
    assert set(cluster.given.values()) == {1}


def test_the_rows_of_a_node_that_is_lost_are_run_by_others():
    cluster = FakeCluster({"a": 2, "b": 3}, lost_after={"a": 2}, comes_back=False)
    outcomes, news = run(cluster, 50)
    assert all(isinstance(outcome, RowResult) for outcome in outcomes.values())
    assert sorted(outcomes) == list(range(1, 51))
    again = sum(count - 1 for count in cluster.given.values())
    assert 0 < again <= 2 * IN_HAND_PER_SLOT
    assert any("node a is lost: it was killed" in line for line in news)


def test_a_row_that_takes_nodes_down_fails_and_the_rest_continues():
    outcomes, _ = run(FakeCluster({"a": 1, "b": 1}, poison={5}), 20)
    assert sorted(outcomes) == list(range(1, 21))
    assert isinstance(outcomes[5], RowError)
    assert f"{MOST_LOSSES} nodes were lost" in outcomes[5].reason
    assert sum(isinstance(outcome, RowError) for outcome in outcomes.values()) <= IN_HAND_PER_SLOT


def test_a_node_that_refuses_is_left_out():
    outcomes, news = run(FakeCluster({"old": 0, "new": 2}), 10)
    assert len(outcomes) == 10
    assert "node old cannot take part: its mlx is older" in news


@pytest.mark.parametrize(
    ("cluster", "reason"),
    [
        (FakeCluster({}), "no node has a free CPU"),
        (FakeCluster({"old": 0}), "node old cannot take part: its mlx is older"),
        (FakeCluster({"a": 1}, lost_after={"a": 2}, comes_back=False), "node a is lost: it was killed"),
    ],
    ids=["no nodes", "refused", "lost"],
)
def test_without_a_node_the_run_ends(cluster, reason):
    with pytest.raises(ClusterLostError, match=reason):
        run(cluster, 10)


def test_memory_does_not_grow_with_the_rows_that_wait():
    rows = ClusterRows(FakeCluster({"a": 2}), on_news=lambda line: None)
    taken = 0
    for _ in range(3):
        while rows.has_room:
            taken += 1
            rows.begin(a_row(taken), seed=1)
        rows.advance()
    assert taken <= 1 + 2 * 2 * IN_HAND_PER_SLOT


def test_a_node_that_differs_is_refused():
    from metal_gen.batch.cluster.worker import require_same

    require_same({"mlx": "1", "seed": 3}, {"mlx": "1", "seed": 3})
    with pytest.raises(UsageError, match="its mlx is '1', but the batch was started with '2'"):
        require_same({"mlx": "1"}, {"mlx": "2"})


# Over Ray


@pytest.fixture
def ray_cluster(monkeypatch):
    """Start two nodes on this machine; the second can be removed."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    size = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={**size, "include_dashboard": False})
    try:
        yield cluster, cluster.add_node(**size)
    finally:
        cluster.shutdown()


def texts(path):
    found = [json.loads(line) for line in path.read_text().splitlines()]
    by_id = {record["id"]: record["text"] for record in found}
    assert len(by_id) == len(found)
    return by_id


def wait_for(records, output, process):
    """Wait for a number of records."""
    deadline_s = time.monotonic() + 120
    while not (output.exists() and output.read_bytes().count(b"\n") >= records):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


@pytest.mark.release
def test_a_run_is_terminated_and_a_node_killed_and_the_texts_are_those_of_one_machine(ray_cluster, tmp_path):
    cluster, second = ray_cluster
    rows = [{"id": number, "prompt": f"Tell me story {number}."} for number in range(24)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run_cli("batch", "in.jsonl", "-o", "one.jsonl", *SEED, home=tmp_path).code == 0
    arguments = ("batch", "in.jsonl", "-o", "two.jsonl", "--resume", "--batch-size", "1", *SEED)
    output = tmp_path / "two.jsonl"
    terminated = start_cli(*arguments, "--cluster", cluster.address, home=tmp_path)
    wait_for(1, output, terminated)
    terminated.send_signal(signal.SIGTERM)
    assert (terminated.wait(60), terminated.stdout.read()) == (143, b"")
    done = len(texts(output))
    assert 0 < done < len(rows)
    resumed = start_cli(*arguments, "--cluster", cluster.address, home=tmp_path)
    wait_for(done + 4, output, resumed)
    cluster.remove_node(second, allow_graceful=False)
    stdout, stderr = resumed.communicate(timeout=120)
    assert (resumed.returncode, stdout) == (0, b""), stderr
    assert b"will be run again" in stderr
    assert texts(output) == texts(tmp_path / "one.jsonl")


SCORED = {
    "score": [{"id": number, "text": f"Story {number} begins."} for number in range(8)],
    "rank": [
        {"id": number, "query": "who?", "documents": [f"fox {number}", "an owl"]} for number in range(4)
    ],
}


@pytest.mark.release
@pytest.mark.parametrize("command", SCORED)
def test_scores_and_rankings_are_those_of_one_machine(ray_cluster, tmp_path, command):
    cluster, _ = ray_cluster
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in SCORED[command]))
    for output, *more in (("one.jsonl",), ("two.jsonl", "--cluster", cluster.address)):
        arguments = (command, "--jsonl", "in.jsonl", "-o", output, "--ordered", "--batch-size", "2")
        outcome = run_cli(*arguments, *more, home=tmp_path)
        assert (outcome.code, outcome.stdout) == (0, b""), outcome.stderr
    assert (tmp_path / "two.jsonl").read_bytes() == (tmp_path / "one.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("here", "--cluster must be auto, HOST:PORT or ray://HOST:PORT: here"),
        ("127.0.0.1:9", "--cluster 127.0.0.1:9 cannot be reached"),
        ("127.0.0.1:999999", "--cluster 127.0.0.1:999999 cannot be reached"),
    ],
)
def test_an_address_without_a_cluster_is_refused_at_once(tmp_path, address, message):
    pytest.importorskip("ray")
    from metal_gen.batch.cluster.ray_nodes import RayCluster

    with pytest.raises(UsageError, match=message):
        RayCluster(address, task=None)
