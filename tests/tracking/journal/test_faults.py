"""Faults of a real server and of the disk during training; afterwards everything must be there exactly once."""

from __future__ import annotations

import os
import random
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from experiments.bench.proxy import SlowProxy
from grad_callbacks.tracking import sync
from grad_callbacks.tracking.journal.journal import journals
from tests.support.processes import Child, ForkServer, wait_until
from tests.support.servers import NO_SERVER, Server, artifacts_of, steps_of, the_run

STEPS, PAUSE = 40, 20
MAX_SECONDS = 20.0  # in the logger: 10 are promised, and twice that allowed on a busy machine


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, fresh_store: Path) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    (folder / "mlflow.db").write_bytes(fresh_store.read_bytes())
    made = Server(folder)
    try:
        made.start()
        yield made
    finally:
        made.kill()


@pytest.fixture
def client(server: Server) -> MlflowClient:
    return MlflowClient(server.uri)


class Training:
    """A training of two stages in a process of its own."""

    def __init__(self, fork_server: ForkServer, folder: Path, experiment: str, uri: str, before: str = "") -> None:
        folder.mkdir()
        self.folder, self.experiment = folder, experiment
        training = (
            f"from tests.support.tracked_training import staged\nstaged({experiment!r}, {uri!r}, {PAUSE}, {STEPS})"
        )
        code = f"{before}\n{training}"
        self.process: Child = fork_server.start(code, folder)

    def wait_for_pause(self) -> None:
        assert wait_until((self.folder / f"at-{PAUSE}").exists), self.process.said

    def go_on(self) -> None:
        (self.folder / "go").touch()

    def end(self) -> None:
        """Let it run to its end, which must be a normal one, and soon."""
        self.go_on()
        self.process.wait()
        [seconds] = re.findall(r"ended normally; ([\d.]+) seconds", self.process.said) or pytest.fail(self.process.said)
        assert float(seconds) < MAX_SECONDS

    def sync(self, uri: str) -> list[str]:
        return [run.state for run in sync(self.folder / "mlflow-journal", uri)]

    def check(self, client: MlflowClient, status: str = "FINISHED") -> None:
        """Everything is there, once."""
        run = the_run(client, self.experiment)
        assert steps_of(client, run.info.run_id, "loss") == list(range(STEPS))
        assert steps_of(client, run.info.run_id, "epoch") == list(range(STEPS))
        assert artifacts_of(client, run.info.run_id) == _paths(range(0, STEPS, 10))
        assert run.info.status == status
        assert run.data.params["lr"] == "0.1"


def test_no_server_from_the_start(
    fork_server: ForkServer, server: Server, client: MlflowClient, tmp_path: Path
) -> None:
    training = Training(fork_server, tmp_path / "a", "absent", NO_SERVER)
    training.end()
    assert training.sync(server.uri) == ["sent"]
    training.check(client)


def test_a_server_that_is_killed_and_one_training_ends_before_it_is_back_and_another_later(
    fork_server: ForkServer, server: Server, client: MlflowClient, tmp_path: Path
) -> None:
    early = Training(fork_server, tmp_path / "a", "killed, not back", server.uri)
    late = Training(fork_server, tmp_path / "b", "killed, and back", server.uri)
    early.wait_for_pause()
    late.wait_for_pause()
    server.kill()
    early.end()
    server.start()
    late.end()
    assert set(late.sync(server.uri)) <= {"sent"}  # if its last try was too early
    late.check(client)
    assert early.sync(server.uri) == ["sent"]
    early.check(client)


def test_a_frozen_server(fork_server: ForkServer, server: Server, client: MlflowClient, tmp_path: Path) -> None:
    before = Training(fork_server, tmp_path / "a", "frozen in mid-run", server.uri)
    before.wait_for_pause()
    server.freeze()
    try:
        after = Training(fork_server, tmp_path / "b", "frozen at the start", server.uri)
        after.go_on()
        before.end()
        after.end()
    finally:
        server.thaw()
    for training in (before, after):
        assert training.sync(server.uri) == ["sent"]
        training.check(client)


def test_two_trainings_in_one_store_and_one_folder_of_journals(
    fork_server: ForkServer, server: Server, client: MlflowClient, tmp_path: Path
) -> None:
    (tmp_path / "journal").mkdir()
    both = []
    for name in ("one", "other"):
        code = f"import os; os.environ['GRAD_CALLBACKS_JOURNAL'] = {str(tmp_path / 'journal')!r}"
        both.append(Training(fork_server, tmp_path / name, name, server.uri, before=code))
    for training in both:
        training.go_on()
    for training in both:
        training.end()
        training.check(client)
    assert not list((tmp_path / "journal").iterdir())


FULL = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))  # no file of this process can grow beyond
"""


@pytest.mark.parametrize("size", [0, 2000])
def test_a_disk_that_is_full(
    size: int, fork_server: ForkServer, server: Server, client: MlflowClient, tmp_path: Path
) -> None:
    if size == 0:  # not even the output of the process would find room: the folder is no folder instead
        before = "import os; os.environ['GRAD_CALLBACKS_JOURNAL'] = '/dev/full/journal'"
    else:
        before = FULL.format(size=size)
    training = Training(fork_server, tmp_path / "a", f"full at {size}", server.uri, before)
    training.end()
    training.check(client)


def test_a_slow_server_does_not_slow_the_steps(
    fork_server: ForkServer, server: Server, client: MlflowClient, tmp_path: Path
) -> None:
    proxy = SlowProxy(server.port, delay=0.2)
    try:
        training = Training(fork_server, tmp_path / "a", "slow", proxy.uri)
        training.end()
    finally:
        proxy.close()
    training.sync(server.uri)
    training.check(client)


RESUMABLE = """
import time
from grad_callbacks.tracking import JournaledMLFlowLogger
logger = JournaledMLFlowLogger("{experiment}", tracking_uri="{uri}", run_id={run_id!r})
first = {first}
for step in range(first, {last}):
    if step % 50 == 0:
        logger.experiment.log_text(logger.run_id, "text", f"texts/{{step}}.txt")
    logger.log_metrics({{"loss": 1.0, "acc": step}}, step=step)
    print(step, flush=True)
    time.sleep(0.001)  # the length of a training step
logger.finalize("success")
logger.close()
"""


def logged(said: str) -> int:
    """How many steps the process has said to have logged."""
    return sum(line.isdigit() for line in said.splitlines())


class Logged:
    """True as soon as a process has said that it has logged so many steps."""

    def __init__(self, process: Child, steps: int) -> None:
        self.process, self.steps = process, steps

    def __call__(self) -> bool:
        return logged(self.process.said) >= self.steps


def test_a_training_that_is_killed_again_and_again_loses_nothing(
    fork_server: ForkServer, server: Server, client: MlflowClient, tmp_path: Path
) -> None:
    """Five times; ``KILLS=20 pytest -k again_and_again`` for more."""
    chance, done, run_id = random.Random(0), 0, None
    settings = {"experiment": "killed", "uri": server.uri}
    for _ in range(int(os.environ.get("KILLS", "5"))):
        victim = fork_server.start(RESUMABLE.format(run_id=run_id, first=done, last=10**9, **settings), tmp_path)
        assert wait_until(Logged(victim, chance.randrange(1000))), victim.said
        victim.send(signal.SIGKILL)
        victim.wait()
        for journal in journals(tmp_path / "mlflow-journal"):
            steps = [entry["s"] for entry, _ in journal.entries() if "m" in entry]
            assert steps == list(range(len(steps)))
            assert len(steps) >= done + logged(victim.said), "what was logged is in the journal"
            done, run_id = len(steps), journal.id
    resumed = fork_server.start(RESUMABLE.format(run_id=run_id, first=done, last=done + 100, **settings), tmp_path)
    resumed.wait()
    assert logged(resumed.said) == 100, resumed.said

    list(sync(tmp_path / "mlflow-journal", server.uri))
    run = the_run(client, "killed")
    assert steps_of(client, run.info.run_id, "acc") == list(range(done + 100))
    assert artifacts_of(client, run.info.run_id) == _paths(range(0, done + 100, 50))
    assert run.info.status == "FINISHED"
    assert done > 100


def _paths(steps: range) -> list[str]:
    return sorted(["context/environment.yaml", *(f"texts/{step}.txt" for step in steps)])
