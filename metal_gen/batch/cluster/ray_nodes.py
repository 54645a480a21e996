"""A Ray cluster: one actor per node, and the calls in progress.

No other module imports Ray. https://docs.ray.io/en/latest/ray-core/actors.html
"""

import logging
import os
import pickle
import signal
import socket
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Self

from metal_gen.batch.cluster.protocol import (
    BlockReport,
    Message,
    NodeLost,
    NodeReady,
    NodeRefusal,
    NodeTask,
    SeededRow,
)
from metal_gen.errors import MetalGenError, UsageError

AUTO = "auto"
# Must agree with the extra `cluster` in pyproject.toml.
PACKAGE = "ray>=2.60,<3"
CLIENT = "ray://"
START_HINT = "start Ray with: ray start --head; and at the other machines: ray start --address HOST:6379"
CONNECT_TIMEOUT_S = 5.0
# A node whose process has ended this many times is not started again.
MOST_STARTS = 3


class _NodeActor:
    """The process on a node; it imports MLX only once it knows which BLAS to use."""

    def load(self, blas: str, pickled_task: bytes) -> NodeReady | NodeRefusal:
        """Load the model, or return why this node cannot.

        Args:
            blas: Library for matrix products on a CPU.
            pickled_task: The task, which is read once MLX has been imported: its classes import MLX.
        """
        # Ray sets this to the number of CPUs that the actor requests, and OpenBLAS would use no more.
        os.environ.pop("OMP_NUM_THREADS", None)
        try:
            from metal_gen.device.backend import require_mlx

            require_mlx(blas)
            task: NodeTask = pickle.loads(pickled_task)

            from metal_gen.batch.cluster.worker import BlockRunner, load_at_node
            from metal_gen.device.backend import device_name

            # The context stays open until the process ends.
            self._slots = task.work.open(load_at_node(task))
            executor = self._slots.__enter__()
        except MetalGenError as error:
            return NodeRefusal(error.message)
        self._runner: BlockRunner = BlockRunner(executor)
        return NodeReady(executor.slots, device_name())

    def work(self, rows: Sequence[SeededRow]) -> BlockReport:
        """Add rows and continue with all of them."""
        return self._runner.work(rows)


class RayCluster:
    """The nodes of a running Ray cluster; a context manager that ends the processes it started there.

    Args:
        address: `auto`, HOST:PORT or ray://HOST:PORT.
        task: What each node loads.

    Raises:
        UsageError: Ray is not installed, or none runs at the address.
    """

    def __init__(self, address: str, task: NodeTask) -> None:
        _connect(address)
        import ray

        self._ray = ray
        self._task = task
        self._actors: dict[str, Any] = {}
        self._calls: dict[Any, str] = {}
        self._starts: Counter[str] = Counter()
        self._refused: set[str] = set()

    def start_workers(self) -> list[str]:
        """Start a process on every usable node that has none; return the names of these nodes."""
        started = []
        for node in self._ray.nodes():
            name = f"{node['NodeName']}/{node['NodeID'][:6]}"
            if name in self._actors or not _can_take_part(node):
                continue
            if name in self._refused or self._starts[name] == MOST_STARTS:
                continue
            self._starts[name] += 1
            self._actors[name] = self._start_actor(node["NodeID"])
            loading = self._actors[name].load.remote(self._task.settings.blas, pickle.dumps(self._task))
            self._calls[loading] = name
            started.append(name)
        return started

    def send(self, node: str, rows: Sequence[SeededRow]) -> None:
        """Send rows to a node, which adds them to those it has."""
        self._calls[self._actors[node].work.remote(rows)] = node

    def receive(self, timeout_s: float) -> list[tuple[str, Message]]:
        """Wait for messages from nodes and return those received, perhaps none."""
        messages: list[tuple[str, Message]] = []
        for call in self._ended_calls(timeout_s):
            name = self._calls.pop(call, None)
            if name is None:
                continue
            message = self._result(call)
            if isinstance(message, NodeRefusal | NodeLost):
                if isinstance(message, NodeRefusal):
                    self._refused.add(name)
                self._give_up(name)
            messages.append((name, message))
        return messages

    def close(self) -> None:
        """End the processes on the nodes and leave the cluster running."""
        self._ray.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _start_actor(self, node_id: str) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(node_id, soft=False)
        actor = self._ray.remote(_NodeActor)
        return actor.options(num_cpus=1, max_restarts=0, scheduling_strategy=here).remote()

    def _ended_calls(self, timeout_s: float) -> list[Any]:
        if not self._calls:
            return []
        ended, going_on = self._ray.wait(list(self._calls), timeout=timeout_s)
        also_ended = self._ray.wait(going_on, num_returns=len(going_on), timeout=0)[0] if going_on else []
        return [*ended, *also_ended]

    def _result(self, call: Any) -> Message:
        try:
            message: Message = self._ray.get(call)
        except self._ray.exceptions.RayTaskError as error:
            return NodeLost(f"{type(error.cause).__name__}: {error.cause}")
        except self._ray.exceptions.RayError as error:
            return NodeLost(_first_line(error))
        return message

    def _give_up(self, name: str) -> None:
        self._calls = {call: other for call, other in self._calls.items() if other != name}
        self._ray.kill(self._actors.pop(name))


def _connect(address: str) -> None:
    """Connect to a running Ray without changing this process's signal handlers and streams."""
    try:
        import ray
    except ImportError:
        raise UsageError("--cluster needs Ray, which is not installed", f"pip install '{PACKAGE}'") from None
    if address != AUTO:
        _require_listener(address)
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UsageError(f"--cluster {address} cannot be joined: {_first_line(error)}", START_HINT) from None
    finally:
        signal.signal(signal.SIGTERM, handler)


def _require_listener(address: str) -> None:
    """Check that something listens at the address; Ray itself would retry for minutes."""
    host, colon, port = address.removeprefix(CLIENT).rpartition(":")
    if not (host and colon and port.isdecimal()):
        raise UsageError(
            f"--cluster must be auto, HOST:PORT or {CLIENT}HOST:PORT: {address}", "such as 192.168.1.20:6379"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        raise UsageError(f"--cluster {address} cannot be reached: {error}", START_HINT) from None


def _can_take_part(node: Mapping[str, Any]) -> bool:
    return bool(node["Alive"]) and node["Resources"].get("CPU", 0) >= 1


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
