"""Every way a run can end, in every executor: one exact outcome, soon, and nothing for the neighbours to pay.

The expectations stand in docs/endings.md. A process that ends takes its neighbours' runs with it, never their jobs.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from pgjobs import Job, PgJobs, Retry, statements
from pgjobs.embedded import ControlledServer
from pgjobs.migrations import migrate
from pgjobs.worker import identity
from tests import endings
from tests.apps import endings as app
from tests.endings import EXECUTORS, Cell
from tests.processes import WorkerProcess
from tests.proxy import Proxy
from tests.support import eventually, scratch_directory

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(identity.place() is None, reason="what is asked of /proc only Linux has"),
]

APP = "tests.apps.endings"
LONG_S = int(os.environ.get("PGJOBS_LONG_S", "12"))
"""How long a job blocks that has no timeout: longer than a silent worker is believed to live; 60 in make nightly."""


@dataclass
class Stage:
    """A worker with two neighbours in its slots, and the job that the row is about."""

    executor: str
    url: str
    jobs: PgJobs
    flag: Path
    monkeypatch: pytest.MonkeyPatch
    exits: ExitStack
    job: Job[Any] = field(init=False)
    worker: WorkerProcess = field(init=False)
    neighbours: list[Job[Any]] = field(default_factory=list)
    caused_at: float = 0.0

    def start(self, *arguments: str, url: str | None = None) -> WorkerProcess:
        """Starts the worker, and has the neighbours begin."""
        self.worker = self.exits.enter_context(WorkerProcess(url or self.url, "-c", "4", *arguments, app=APP)).ready()
        self.neighbours = [self.jobs.enqueue(f"neighbours.{kind}", str(self.held)) for kind in ("async", "thread")]
        eventually(lambda: all(self.runs(job, self.held) for job in self.neighbours))
        return self.worker

    @property
    def held(self) -> Path:
        """The flag of the neighbours."""
        return self.flag.with_name("neighbours")

    def enqueue(self, name: str, *args: Any, **options: Any) -> Job[Any]:
        """Enqueues the job; that is the cause, unless another one follows."""
        self.job = self.jobs.using(**({"retry": 1} | options)).enqueue(f"{name}.{self.executor}", str(self.flag), *args)
        self.cause()
        return self.job

    def cause(self) -> None:
        self.caused_at = time.monotonic()

    def runs(self, job: Job[Any], flag: Path | None = None) -> int:
        """How often the job has begun."""
        file = Path(f"{flag or self.flag}.{job.id}")
        return len(file.read_text()) if file.exists() else 0

    def await_run(self) -> None:
        """Waits until the job runs; what is done next is the cause."""
        eventually(lambda: self.runs(self.job), timeout_s=10)
        self.cause()

    def pid(self) -> int:
        """The process that a SIGKILL is for: a pool process, else the child."""
        (child,) = self.worker.children()
        if self.executor != "process":
            return child
        pooled = Path(f"/proc/{child}/task").iterdir()
        pids = [int(pid) for task in pooled for pid in (task / "children").read_text().split()]
        (pid,) = pids
        return pid

    def elsewhere(self) -> None:
        """A worker in this process, which knows nothing of the processes of the worker's machine."""
        self.monkeypatch.setattr(identity, "place", lambda: None)
        for task in app.jobs.tasks.values():
            self.jobs.task(name=task.name, executor=task.executor)(task.function)
        self.exits.enter_context(self.jobs.worker(app=APP))

    def seen_by_neighbours(self) -> str:
        """Lets the neighbours end, and says what they have seen."""
        self.held.unlink()
        seen = {"undisturbed"} if self.neighbours else {"none"}
        for job in self.neighbours:
            assert job.get(20) == "done"
            assert job.row.attempt == 1
            if job.row.crashes:
                seen.add("charged")
            elif self.runs(job, self.held) > 1:
                seen.add("run again")
        return next(word for word in ("charged", "run again", "undisturbed", "none") if word in seen)


@dataclass(frozen=True)
class Row:
    """One way to end; limit_s bounds the time from the cause to the outcome."""

    title: str
    limit_s: float
    play: Callable[[Stage], None]
    final: tuple[str, ...] = ("succeeded", "failed", "cancelled", "expired")
    executors: tuple[str, ...] = EXECUTORS


ROWS: list[Row] = []


def row(title: str, limit_s: float, **more: Any) -> Callable[[Callable[[Stage], None]], Callable[[Stage], None]]:
    def add(play: Callable[[Stage], None]) -> Callable[[Stage], None]:
        ROWS.append(Row(title, limit_s, play, **more))
        return play

    return add


def simply(name: str, *args: Any, **options: Any) -> Callable[[Stage], None]:
    """A job that ends by itself."""

    def play(stage: Stage) -> None:
        stage.start()
        if stage.executor == "process":
            stage.jobs.enqueue("returns.process", str(stage.flag)).get(10)  # its process is warm
        stage.enqueue(name, *args, **options)

    return play


row("returns", 1)(simply("returns"))
row("raises", 1)(simply("raises"))
row("raises what cannot be pickled", 1)(simply("raises_pickleless"))
row("raises a BaseException", 1)(simply("raises_base"))
row("raises SystemExit", 1)(simply("exits"))
row("returns what cannot be stored", 1)(simply("unstorable"))
row("raises Snooze", 1, final=("scheduled",))(simply("snoozes"))
row("raises RetryLater, with attempts left", 1, final=("scheduled",))(simply("retries_later", retry=2))
row("raises Cancel", 1)(simply("cancels"))


def overdue(name: str, *args: Any) -> Callable[[Stage], None]:
    """A job that is over its timeout; the deadline is the cause."""

    def play(stage: Stage) -> None:
        stage.start()
        stage.enqueue(name, *args, timeout=1)
        stage.await_run()
        stage.caused_at += 1

    return play


row("is over its timeout, and gives way", 1)(overdue("holds"))
row("is over its timeout, and swallows what is raised", 2)(overdue("swallows"))
row("is over its timeout in a loop without a pause", 3)(overdue("spins"))
row("is over its timeout in one call that does not return", 3)(overdue("sleeps_deaf"))
row("is over its timeout in C code that holds the interpreter", 3)(overdue("holds_the_interpreter"))


@row("is over its timeout, with attempts left", 1, final=("scheduled",))
def overdue_once(stage: Stage) -> None:
    stage.start()
    stage.enqueue("holds", timeout=1, retry=2)
    stage.await_run()
    stage.caused_at += 1


def long(name: str) -> Callable[[Stage], None]:
    """A job without a timeout that is longer than a worker may be silent; another worker's reaper watches."""

    def play(stage: Stage) -> None:
        stage.start()
        stage.exits.enter_context(stage.jobs.worker(queues="other"))
        stage.enqueue(name, LONG_S, timeout=None)
        stage.await_run()
        stage.caused_at += LONG_S

    return play


row("blocks for long without a timeout", 2)(long("sleeps_deaf"))
row("holds the interpreter in C code for long without a timeout", 2)(long("holds_the_interpreter"))

row("ends its process with os._exit, each time", 10)(simply("leaves"))
row("breaks its process (SIGSEGV), each time", 10)(simply("breaks"))


@row("takes more memory than --max-rss, each time", 20)
def greedy(stage: Stage) -> None:
    stage.start("--max-rss", "180M")
    stage.enqueue("hogs", 400)


@row("is killed with the process that runs it", 8)
def process_killed(stage: Stage) -> None:
    stage.start()
    stage.enqueue("holds", retry=Retry(2, backoff=0))
    stage.await_run()
    os.kill(stage.pid(), signal.SIGKILL)
    stage.flag.unlink()


def holding(stage: Stage) -> None:
    stage.start()
    stage.enqueue("holds")
    stage.await_run()


@row("is killed with the child of the worker", 5)
def child_killed(stage: Stage) -> None:
    holding(stage)
    (child,) = stage.worker.children()
    os.kill(child, signal.SIGKILL)
    stage.flag.unlink()


@row("loses its supervisor to SIGKILL, and another worker starts on the host", 3)
def supervisor_killed(stage: Stage) -> None:
    holding(stage)
    os.kill(stage.worker.popen.pid, signal.SIGKILL)
    stage.worker.popen.wait()
    stage.exits.enter_context(WorkerProcess(stage.url, app=APP)).ready()
    stage.cause()
    eventually(lambda: stage.runs(stage.job) == 2, timeout_s=8)
    stage.flag.unlink()


@row("loses its whole worker to SIGKILL, and another one starts on the host", 3)
def group_killed_and_restarted(stage: Stage) -> None:
    holding(stage)
    os.killpg(stage.worker.popen.pid, signal.SIGKILL)
    stage.worker.popen.wait()
    stage.flag.unlink()
    stage.exits.enter_context(WorkerProcess(stage.url, app=APP)).ready()
    stage.cause()


@row("loses its whole worker to SIGKILL, and another one lives on the host", 3)
def group_killed_beside_another(stage: Stage) -> None:
    holding(stage)
    stage.exits.enter_context(WorkerProcess(stage.url, app=APP)).ready()
    stage.cause()
    os.killpg(stage.worker.popen.pid, signal.SIGKILL)
    stage.worker.popen.wait()
    stage.flag.unlink()


@row("loses its whole host, and a worker lives on another one", 15)
def host_lost(stage: Stage) -> None:
    holding(stage)
    stage.elsewhere()
    stage.cause()
    os.killpg(stage.worker.popen.pid, signal.SIGKILL)
    stage.worker.popen.wait()
    stage.flag.unlink()


@row("is paused past its death (SIGSTOP) and wakes up (SIGCONT)", 15)
def paused(stage: Stage) -> None:
    holding(stage)
    stage.elsewhere()
    stage.cause()
    pooled = [stage.pid()] if stage.executor == "process" else []
    group = [stage.worker.popen.pid, *stage.worker.children(), *pooled]
    for pid in group:
        os.kill(pid, signal.SIGSTOP)
    stage.flag.unlink()
    stage.exits.callback(_wake, group)
    eventually(lambda: stage.job.refresh().status.ended, timeout_s=15)
    ended = stage.job.row
    _wake(group)
    eventually(lambda: stage.worker.said("believed dead"))
    time.sleep(1)
    assert stage.job.refresh().row == ended, "what the paused run returned was not recorded"


def _wake(group: list[int]) -> None:
    for pid in group:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


@row("is stopped with its worker, which does not wait", 5, final=("queued",))
def stopped(stage: Stage) -> None:
    holding(stage)
    stage.worker.signal(signal.SIGTERM)
    eventually(lambda: stage.worker.said("stopping"))
    stage.worker.signal(signal.SIGTERM)
    stage.worker.leave(10)


@row("is cancelled", 3)
def cancel(stage: Stage) -> None:
    stage.start()
    stage.enqueue("heeds")
    stage.await_run()
    stage.job.cancel("enough")


@row("is cancelled while it rests for a retry", 1)
def cancel_at_rest(stage: Stage) -> None:
    stage.start()
    stage.enqueue("retries_later", retry=2)
    eventually(lambda: stage.job.refresh().status == "scheduled")
    stage.cause()
    stage.job.cancel("enough")


@row("is cancelled while complete(session) waits to commit", 2)
def cancel_while_it_completes(stage: Stage) -> None:
    stage.start()
    stage.enqueue("completes_and_waits")
    stage.await_run()
    canceller = threading.Thread(target=stage.jobs.cancel, args=([stage.job],))
    canceller.start()
    time.sleep(0.5)
    stage.flag.unlink()
    stage.cause()
    canceller.join(5)


row("rolls back after complete(session)", 1)(simply("completes_and_rolls_back"))


@row("finds the database stopped when it returns, and started again later", 6)
def database_stopped(stage: Stage) -> None:
    directory = stage.exits.enter_context(scratch_directory())
    server = ControlledServer(directory / "home")
    server.start()
    stage.exits.callback(server.stop, "fast")
    stage.url = server.url
    migrate(server.url)
    stage.jobs = PgJobs(server.url)
    stage.exits.callback(stage.jobs.close)
    holding(stage)
    server.stop("immediate")
    stage.flag.unlink()
    time.sleep(1)
    server.start()
    stage.cause()


def cut(moment: Any) -> Callable[[Stage], None]:
    """A job whose claim and completion meet connections that are cut, several times each."""

    def play(stage: Stage) -> None:
        parts = urlsplit(stage.url)
        proxy = Proxy(parts.hostname or "127.0.0.1", parts.port or 5432)
        stage.exits.callback(proxy.close)
        netloc = f"{parts.username}@127.0.0.1:{proxy.port}"
        stage.start(url=parts._replace(netloc=netloc).geturl())
        proxy.cut(moment, 3)
        stage.enqueue("holds")
        eventually(lambda: stage.runs(stage.job), timeout_s=15)
        eventually(lambda: proxy.cuts == 3)
        proxy.cut(moment, 3)
        stage.flag.unlink()
        stage.cause()
        eventually(lambda: stage.job.refresh().status.ended, timeout_s=15)
        assert proxy.cuts > 3
        assert stage.runs(stage.job) == 1

    return play


row("has its connection cut before the commits of its claim and completion", 6)(cut("before"))
row("has its connection cut after the commits of its claim and completion", 6)(cut("after"))


@row("has an unknown task", 2, final=("scheduled",))
def unknown_task(stage: Stage) -> None:
    stage.start()
    stage.enqueue("nobody_knows")
    eventually(lambda: stage.job.refresh().reason)


@row("has arguments that do not fit any more", 2, final=("scheduled",))
def unfit_arguments(stage: Stage) -> None:
    stage.start()
    stage.enqueue("returns", 1, 2, 3)
    eventually(lambda: stage.job.refresh().reason)


@row("is deleted while it runs", 3, final=("gone",))
def deleted(stage: Stage) -> None:
    stage.start()
    stage.enqueue("heeds")
    stage.await_run()
    stage.job.delete()


@pytest.fixture
def stage(
    request: pytest.FixtureRequest,
    database_url: str,
    jobs: PgJobs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Stage]:
    monkeypatch.setenv("PGJOBS_URL", database_url)
    for name in ("flag", "neighbours"):
        (tmp_path / name).touch()
    with ExitStack() as exits:
        yield Stage(request.param, database_url, jobs, tmp_path / "flag", monkeypatch, exits)


CELLS = [(one, executor) for one in ROWS for executor in one.executors]


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("way", "stage"), CELLS, ids=[f"{one.title}-{executor}" for one, executor in CELLS], indirect=["stage"]
)
def test_run_that(way: Row, stage: Stage) -> None:
    way.play(stage)
    rows = stage.jobs

    def stands() -> str:
        found = rows.database.run(statements.job(stage.job.id))
        return "gone" if found is None else found.status.value

    patience_s = max(0.0, stage.caused_at - time.monotonic()) + way.limit_s + 10
    eventually(lambda: stands() in way.final, timeout_s=patience_s)
    seconds = time.monotonic() - stage.caused_at
    status = stands()
    found = None if status == "gone" else stage.job.refresh().row
    neighbours = "given back" if way.title.startswith("is stopped") else stage.seen_by_neighbours()
    reason = None if found is None or found.reason is None else found.reason.split(":")[0]
    attempts, crashes = (0, 0) if found is None else (found.attempt, found.crashes)
    cell = Cell(
        way.title, stage.executor, status, reason, attempts, crashes, neighbours, way.limit_s, max(seconds, 0.0)
    )
    endings.keep(cell)
    if "PGJOBS_ENDINGS" not in os.environ:
        assert cell.outcome == endings.known().get((way.title, stage.executor))
    assert seconds <= way.limit_s


def test_document_has_every_row_and_no_other() -> None:
    assert list(dict.fromkeys(title for title, _ in endings.known() if title != "the run")) == [
        way.title for way in ROWS
    ]
