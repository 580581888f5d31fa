"""A worker as its operators see it: its log, health and metrics, what systemd and ps hear; docs/monitoring.md."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from importlib import resources
from pathlib import Path
from typing import Any

import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from pgjobs import PgJobs, events
from pgjobs.connections.link import Link, Results
from pgjobs.job import new_id
from pgjobs.statements import Statement
from pgjobs.supervisor.health import Health, Standing
from pgjobs.supervisor.metrics import METRICS, Metrics, QueueGauge
from pgjobs.supervisor.monitor import Monitor, QueueGauges, address
from pgjobs.supervisor.notify import Notifier
from pgjobs.worker.tally import BUCKETS, MAX_NAMES, OTHERS, Tally
from tests.apps import watched
from tests.processes import ROOT, WorkerProcess, environment, pgjobs
from tests.support import eventually
from tests.unit.test_telemetry import MAIL_ERROR, outcome

APP = "tests.apps.watched"
SECRET = "keep-this-one"
PAGE = (ROOT / "docs" / "monitoring.md").read_text()


@pytest.fixture
def app(jobs: PgJobs) -> PgJobs:
    """The tasks of the application, enqueued in the test's database."""
    for task in watched.jobs.tasks.values():
        jobs.task(name=task.name, **task.options)(task.function)
    return jobs


# -- logs


def test_log_is_json_and_says_whose_each_line_is(app: PgJobs, database_url: str, conn: psycopg.Connection[Any]) -> None:
    with WorkerProcess(database_url, "--log-format", "json", app=APP) as worker:
        greeting = app.enqueue(f"{APP}.greet", "Ann", SECRET)
        far = app.enqueue(f"{APP}.far")
        failing = app.enqueue(f"{APP}.boom", SECRET)
        conn.execute(
            "INSERT INTO pgjobs.jobs (task, args) VALUES (%s, %s)", (f"{APP}.number", f'{{"password": "{SECRET}"}}')
        )
        eventually(lambda: failing.refresh().status.ended and far.refresh().status.ended, timeout_s=20)
        eventually(lambda: worker.said(f"{APP}.number"))
        worker.popen.terminate()
        worker.leave()
    lines = [json.loads(line) for line in worker.lines]
    assert {"time", "level", "logger", "message", "worker"} <= set.intersection(*(set(line) for line in lines))
    (hello,) = (line for line in lines if line["logger"] == "app" and "customer" in line)
    assert (hello["job_id"], hello["task"], hello["queue"], hello["attempt"]) == (
        str(greeting.id), f"{APP}.greet", "mail", 1,
    )  # fmt: skip
    assert (hello["message"], hello["customer"]) == ("hello Ann", "Ann")
    (afar,) = (line for line in lines if line["message"] == "from afar")
    assert (afar["job_id"], afar["worker"]) == (str(far.id), hello["worker"])
    of_failing = [(line["level"], line["attempt"]) for line in lines if line.get("job_id") == str(failing.id)]
    assert of_failing == [("warning", 1), ("error", 2)]
    assert not worker.said(SECRET)


# -- health and metrics


def fetch(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def url_of(worker: WorkerProcess) -> str:
    eventually(lambda: worker.said("watch me at "))
    return worker.said("watch me at ")[0].split("watch me at ")[1].split("/live")[0]


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Values by the name of the sample and its labels' values."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.mark.server
def test_worker_answers_how_it_is_and_what_it_has_done(app: PgJobs, database_url: str) -> None:
    app.using(queue="elsewhere").enqueue_many(f"{APP}.noop", [()] * 3)
    with WorkerProcess(database_url, "--http", "0", "-Q", "default,mail", "-c", "4", app=APP).ready() as worker:
        url = url_of(worker)
        assert url.startswith("http://127.0.0.1:")
        eventually(lambda: fetch(f"{url}/ready")[0] == 200)
        code, live = fetch(f"{url}/live")
        assert (code, [each["ready"] for each in json.loads(live)["processes"]]) == (200, [True])
        app.using().enqueue_many(f"{APP}.noop", [()] * 50)
        app.enqueue(f"{APP}.greet", "Ann", SECRET)
        failing = app.enqueue(f"{APP}.boom", SECRET)
        eventually(lambda: failing.refresh().status.ended)

        def found() -> dict[tuple[str, ...], float]:
            return samples(fetch(f"{url}/metrics")[1])

        eventually(lambda: found().get(("pgjobs_jobs_total", f"{APP}.boom", "default", "failed")) == 1)
        figures = found()
        assert figures["pgjobs_jobs_total", f"{APP}.boom", "default", "retried"] == 1
        assert figures["pgjobs_jobs_total", f"{APP}.noop", "default", "succeeded"] == 50
        assert figures["pgjobs_jobs_total", f"{APP}.greet", "mail", "succeeded"] == 1
        assert figures["pgjobs_job_run_seconds_count", f"{APP}.noop"] == 50
        assert figures["pgjobs_job_wait_seconds_bucket", f"{APP}.noop", "+Inf"] == 50
        assert 0 < figures["pgjobs_job_wait_seconds_sum", f"{APP}.noop"] < 50 * 10
        assert (figures["pgjobs_slots",], figures["pgjobs_database_up",]) == (4, 1)
        assert figures["pgjobs_processes_ready",] == 1
        assert figures["pgjobs_claims_total",] >= 2
        assert figures["pgjobs_queue_jobs", "elsewhere", "queued"] == 3
        assert figures["pgjobs_queue_oldest_wait_seconds", "elsewhere"] > 0
        assert SECRET not in fetch(f"{url}/metrics")[1]
        assert fetch(f"{url}/other")[0] == 404


def test_death_of_a_process_is_counted_and_the_next_one_goes_on(app: PgJobs, database_url: str) -> None:
    with WorkerProcess(database_url, "--http", "0", app="tests.apps.basic").ready() as worker:
        url = url_of(worker)
        app.enqueue("tests.apps.basic.kill_me", times=1)
        eventually(lambda: samples(fetch(f"{url}/metrics")[1])["pgjobs_process_restarts_total",] == 1)
        figures = samples(fetch(f"{url}/metrics")[1])
        assert figures["pgjobs_process_deaths_total",] == 1
        eventually(lambda: samples(fetch(f"{url}/metrics")[1])["pgjobs_jobs_reaped_total",] == 1)


def test_address_that_nobody_can_listen_at_is_refused(database_url: str) -> None:
    with closing(Monitor("0", 300.0, print)) as taken:
        port = taken.url.rpartition(":")[2]
        ended = pgjobs(database_url, "worker", "-A", APP, "--http", port)
    assert ended.returncode == 2
    assert f"nobody can listen at --http {port}" in ended.stderr
    assert pgjobs(database_url, "worker", "-A", APP, "--http", "here").returncode == 2


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("9464", ("127.0.0.1", 9464)),
        (":9464", ("127.0.0.1", 9464)),
        ("0.0.0.0:1", ("0.0.0.0", 1)),
        ("[::1]:9464", ("::1", 9464)),
    ],
)
def test_address_without_a_host_is_this_machine_alone(text: str, where: tuple[str, int]) -> None:
    assert address(text) == where


@pytest.fixture
def monitor() -> Iterator[Monitor]:
    with closing(Monitor("0", 10.0, print)) as made:
        yield made


def health(**other: Any) -> Health:
    now = time.monotonic()
    usual: dict[str, Any] = {
        "turned_at": now,
        "processes": [Standing(1, True, 0.1)],
        "stopping": False,
        "reached_at": now,
    }
    return Health(**usual | other)


@pytest.mark.parametrize(
    ("how", "live", "ready"),
    [
        ({}, True, True),
        ({"turned_at": time.monotonic() - 60}, False, True),
        ({"processes": [Standing(1, True, 25.0)]}, False, True),
        ({"processes": [Standing(1, True, 9.0)]}, True, True),
        ({"processes": [Standing(1, False, 0.1)]}, True, False),
        ({"processes": []}, True, False),
        ({"stopping": True}, True, False),
        ({"reached_at": time.monotonic() - 60}, True, False),
    ],
)
def test_health_is_what_was_seen_last(how: dict[str, Any], live: bool, ready: bool, monitor: Monitor) -> None:
    monitor.start()
    monitor.health = health(**how)
    assert [fetch(f"{monitor.url}/{path}")[0] for path in ("live", "ready")] == [
        200 if live else 503,
        200 if ready else 503,
    ]
    figures = samples(fetch(f"{monitor.url}/metrics")[1])
    assert figures["pgjobs_database_up",] == (0 if "reached_at" in how else 1)


def test_what_makes_no_sense_is_dropped() -> None:
    """A job has the pipe to the supervisor, too."""
    metrics = Metrics()
    for document in (7, [], {"jobs": 3}, {"runs": {"t": [[1], 0.1]}}, {"jobs": [["t", "q", "s", "many"]]}):
        metrics.hear(0, document)
    figures = samples(metrics.text(processes=0, ready=0, reachable=False, queues=[]))
    assert not [key for key in figures if key[0].startswith(("pgjobs_jobs_total", "pgjobs_job_run"))]


def test_labels_may_be_any_text() -> None:
    metrics = Metrics()
    name = 'a "b" \\ c\nd é'
    metrics.hear(0, {"jobs": [[name, "q", "succeeded", 2]]})
    text = metrics.text(processes=1, ready=1, reachable=True, queues=[QueueGauge(name, 1, 2, 3, None)])
    assert samples(text)["pgjobs_jobs_total", name, "q", "succeeded"] == 2
    assert samples(text)["pgjobs_queue_jobs", name, "scheduled"] == 3


def test_tally_sums_up_and_begins_anew() -> None:
    heard: list[events.Event] = []
    tally = Tally(heard.append)
    good, bad, ours = outcome(), outcome("scheduled", reason="error", failure=MAIL_ERROR), outcome()
    for each in (good, bad, ours):
        each.run.begun = time.perf_counter()
    ours.run.attempt = 1
    tally(recorded := events.Recorded([good, good, bad, ours]))
    tally(events.Released(3, "stopped"))
    sums = tally.take(busy=1, slots=2, claims=5)
    assert heard[0] is recorded
    assert sorted(sums.jobs) == [("mail.send", "default", "retried", 1), ("mail.send", "default", "succeeded", 3)]
    assert sums.runs["mail.send"].counts[BUCKETS.index(0.25)] == 4
    assert sums.runs["mail.send"].total == 1.0
    assert sum(sums.waits["mail.send"].counts) == 1, "first attempts alone"
    assert sums.counts == {"jobs_released": 3, "claims": 5}
    assert tally.take(claims=2).counts == {"claims": 2}, "another life of the worker"
    assert tally.take(claims=2).jobs == []


@pytest.mark.server
def test_counting_takes_one_call_a_batch_and_no_statement_more(jobs: PgJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[list[str]] = []
    sent = Link.batch

    def noted(link: Link, *wanted: Statement[Any], meanwhile: Callable[[], None] | None = None) -> Results:
        if link._name == "pgjobs worker":
            batches.append([each.query.name for each in wanted])
        return sent(link, *wanted, meanwhile=meanwhile)

    work = jobs.task(name="work")(noop)
    work.enqueue_many([(i,) for i in range(1_000)])
    monkeypatch.setattr(Link, "batch", noted)
    heard: list[events.Event] = []
    tally = Tally(heard.append)
    jobs.worker(burst=True, emit=tally).run()
    assert tally.take().jobs == [("work", "default", "succeeded", 1_000)]
    completing = [names for names in batches if "complete" in names]
    assert sum(isinstance(each, events.Recorded) for each in heard) == len(completing) <= 100
    assert {name for names in completing for name in names} <= {"complete", "forget_claims", "bounds", "claim", "idle"}


async def noop(i: int) -> None: ...


def test_names_without_end_are_summed_up_as_others() -> None:
    tally = Tally(lambda event: None)
    many = [outcome() for _ in range(MAX_NAMES + 5)]
    for number, each in enumerate(many):
        each.run.task_name = f"task {number}"
    tally(events.Recorded(many))
    jobs = tally.take().jobs
    assert len(jobs) == MAX_NAMES + 1
    assert (OTHERS, OTHERS, "succeeded", 5) in jobs


@pytest.mark.server
def test_queues_are_measured_once_for_all_and_only_when_somebody_asks(
    jobs: PgJobs, conn: psycopg.Connection[Any]
) -> None:
    task = jobs.task(name="work")(lambda i: i)
    task.enqueue_many([(i,) for i in range(3)])
    errors: list[events.Event] = []
    first, second = (QueueGauges(jobs.database, new_id(), errors.append) for _ in range(2))
    asked = "SELECT holder, ran_at FROM pgjobs.duties WHERE name = 'measure'"
    try:
        for gauges in (first, second):
            gauges.start()
        assert conn.execute(asked).fetchall() == []
        (found,) = first.read(10.0)
        assert (found.queue, found.queued) == ("default", 3)
        task.enqueue(3)
        row = conn.execute(asked).fetchall()
        assert second.read(10.0) == [found]
        assert conn.execute(asked).fetchall() == row, "the second one has only read"
        conn.execute("UPDATE pgjobs.duties SET next_at = now() WHERE name = 'measure'")
        second._read_at = float("-inf")
        assert [each.queued for each in second.read(10.0)] == [4]
    finally:
        for gauges in (first, second):
            gauges.stop()
    assert errors == []


@pytest.fixture
def exported(app: PgJobs, database_url: str) -> dict[str, Any]:
    """The families of a real worker that has run a job, by name."""
    with WorkerProcess(database_url, "--http", "0", app=APP).ready() as worker:
        app.enqueue(f"{APP}.noop").get(timeout=10)
        url = url_of(worker)
        eventually(
            lambda: 'status="succeeded"' in (text := fetch(f"{url}/metrics")[1]) and "oldest_wait_seconds{" in text
        )
        return {family.name: family for family in text_string_to_metric_families(fetch(f"{url}/metrics")[1])}


def test_what_the_page_and_the_dashboard_name_is_exported(exported: dict[str, Any]) -> None:
    """By a real endpoint, with these labels; and the page names all that it exports."""
    labels = {sample.name: set(sample.labels) - {"le"} for family in exported.values() for sample in family.samples}
    rows = re.findall(r"^\| `(pgjobs_\w+)` \| (\w+) \| ([^|]*) \|", PAGE, re.MULTILINE)
    written = {name: (kind, set(re.findall(r"`(\w+)`", named))) for name, kind, named in rows}
    assert written == {name: (metric.kind, set(metric.labels)) for name, metric in METRICS.items()}
    assert {name.removesuffix("_total"): kind for name, (kind, _) in written.items()} == {
        name: family.type for name, family in exported.items()
    }
    for name, (kind, named) in written.items():
        assert labels[f"{name}_bucket" if kind == "histogram" else name] == named, name
    board = json.loads(resources.files("pgjobs.contrib").joinpath("grafana.json").read_text())
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    queries += [each["definition"] for each in board["templating"]["list"] if "definition" in each]
    queries += re.findall(r"^ +expr: (.*)$", PAGE, re.MULTILINE)
    assert len(queries) > 20
    for query in queries:
        found = re.findall(r"(pgjobs_\w+)(?:\{([^}]*)\})?", query)
        assert found, query
        for name, matchers in found:
            asked = set(re.findall(r"(\w+)(?:=|!)", matchers)) - {"job", "instance"}
            assert asked <= labels[name], (query, labels[name])
        grouped = {word for group in re.findall(r"by \(([^)]*)\)", query) for word in group.split(", ")}
        assert grouped <= labels[found[0][0]] | {"le", "job", "instance"}, query


def test_dashboard_can_be_loaded() -> None:
    """Panels have ids of their own, lie beside each other, and take the data source that is chosen."""
    board = json.loads(resources.files("pgjobs.contrib").joinpath("grafana.json").read_text())
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    covered: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & covered, panel["title"]
        assert max(x for x, _ in cells) < 24
        covered |= cells
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${source}"}
    used = set(re.findall(r"\$(\w+)", " ".join(t["expr"] for p in board["panels"] for t in p["targets"])))
    assert used - {"__rate_interval", "__range"} <= {each["name"] for each in board["templating"]["list"]}


# -- systemd and ps


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The socket on which systemd would listen."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(str(tmp_path / "notify"))
        ear.settimeout(10)
        yield ear


def test_systemd_hears_that_a_worker_is_ready_turns_and_stops(database_url: str, manager: socket.socket) -> None:
    more = {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "500000"}
    with WorkerProcess(database_url, app=APP, **more) as worker:
        heard: list[bytes] = []
        while b"READY=1" not in heard:
            heard.append(manager.recv(100))
        eventually(lambda: worker.said(" ready: "))
        assert set(heard) <= {b"READY=1", b"WATCHDOG=1"}
        while heard.count(b"WATCHDOG=1") < 3:
            heard.append(manager.recv(100))
        worker.signal(signal.SIGTERM)
        while b"STOPPING=1" not in heard:
            heard.append(manager.recv(100))
        assert worker.leave() == 0
    assert heard.count(b"READY=1") == 1


def test_watchdog_of_another_process_is_not_ours(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", manager.getsockname())
    monkeypatch.setenv("WATCHDOG_USEC", "1")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid() + 1))
    notifier = Notifier()
    assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} & os.environ.keys(), "no job speaks for the service"
    for _ in range(3):
        notifier.turned(ready=True)
    notifier.stopping()
    assert [manager.recv(100), manager.recv(100)] == [b"READY=1", b"STOPPING=1"]


def test_manager_that_is_gone_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    notifier = Notifier()
    notifier.turned(ready=True)
    notifier.stopping()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_processes_have_titles(database_url: str) -> None:
    with WorkerProcess(database_url, "-Q", "mail", app=APP).ready() as worker:
        titles = [
            Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0") for pid in (worker.popen.pid, *worker.children())
        ]
    assert titles == [f"pgjobs worker: supervisor of {APP}", f"pgjobs worker: {APP} mail"]


# -- docs/monitoring.md


@pytest.mark.parametrize("example", re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
def test_example_runs(example: str, database_url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", example], env=environment(database_url), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_commands_of_the_page_are_understood(database_url: str) -> None:
    commands = re.findall(r"(?:^|/|=)pgjobs worker( .*)$", PAGE, re.MULTILINE)
    known = pgjobs(database_url, "worker", "--help").stdout
    options = {option for command in commands for option in re.findall(r" (--?[a-z-]+)", command)}
    assert {"--http", "--log-format"} <= options
    assert [option for option in options if not re.search(rf"(?<![\w-]){option}(?![\w-])", known)] == []
