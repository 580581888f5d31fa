"""Metrics as a StatsD server hears them."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator

import pytest

from pgjobs import PgJobs
from pgjobs.errors import ConfigurationError
from pgjobs.supervisor.statsd import MAX_PACKET, Format, Statsd
from pgjobs.worker.tally import Histogram, Sums
from tests.processes import ROOT, WorkerProcess
from tests.support import eventually

pytestmark = pytest.mark.server


class Server:
    """Hears what is sent by UDP."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.settimeout(5.0)
        self.where = f"127.0.0.1:{self.socket.getsockname()[1]}"
        self.packets: list[bytes] = []

    def hear(self) -> list[str]:
        """All lines so far."""
        self.socket.settimeout(0.05)
        while True:
            try:
                self.packets.append(self.socket.recv(65_536))
            except TimeoutError:
                return [line for packet in self.packets for line in packet.decode().split("\n")]


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.socket.close()


def histogram(*values: float) -> Histogram:
    made = Histogram.empty()
    made.add(values)
    return made


def sent(server: Server, form: Format, *sums: Sums) -> list[str]:
    """What comes of sums, the next second included, where nothing is new."""
    statsd = Statsd(server.where, form)
    for each in sums:
        statsd.absorb(each)
    statsd.close()
    return server.hear()


def test_sums_are_sent_in_names_or_in_tags(server: Server) -> None:
    sums = Sums([("mail.send", "a:b", "succeeded", 3)], {"mail.send": histogram(0.2)}, {}, {"claims": 2})
    assert sorted(sent(server, "statsd", sums)) == [
        "pgjobs.claims:2|c",
        "pgjobs.job_run.mail_send:200|ms",
        "pgjobs.jobs.mail_send.a_b.succeeded:3|c",
    ]
    server.packets.clear()
    assert sorted(sent(server, "dogstatsd", sums)) == [
        "pgjobs.claims:2|c",
        "pgjobs.job_run:200|ms|#task:mail.send",
        "pgjobs.jobs:3|c|#task:mail.send,queue:a:b,status:succeeded",
    ]


def test_names_of_any_text_break_no_line(server: Server) -> None:
    lines = sent(server, "dogstatsd", Sums([("a|b,c\nd", "ü#", "failed", 1)]))
    assert lines == ["pgjobs.jobs:1|c|#task:a_b_c_d,queue:ü_,status:failed"]
    server.packets.clear()
    assert sent(server, "statsd", Sums([("a|b:c\nd", "ü@", "failed", 1)])) == ["pgjobs.jobs.a_b_c_d.__.failed:1|c"]


def test_timers_say_how_many_and_how_long_in_all(server: Server) -> None:
    values = [0.001] * 10 + [0.3, 0.4] + [4_000.0]
    lines = sent(server, "statsd", Sums(runs={"t": histogram(*values)}))
    found = [re.fullmatch(r"pgjobs\.job_run\.t:([\d.e+]+)\|ms(?:\|@([\d.]+))?", line) for line in lines]
    timers = [(float(match[1]), 1 / float(match[2] or 1)) for match in found if match]
    assert [round(count) for _, count in timers] == [10, 2, 1]
    assert sum(value * count for value, count in timers) == pytest.approx(sum(values) * 1000, rel=1e-4)


def test_datagrams_fit_a_network(server: Server) -> None:
    sums = Sums([(f"task_{number}", "default", "succeeded", 1) for number in range(200)])
    assert len(sent(server, "dogstatsd", sums)) == 200
    assert len(server.packets) > 1
    assert max(map(len, server.packets)) <= MAX_PACKET


def test_nothing_is_sent_twice_and_nothing_more_often_than_each_second(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    statsd = Statsd(server.where)
    clock = time.monotonic()
    monkeypatch.setattr("pgjobs.supervisor.statsd.time.monotonic", lambda: clock)
    statsd.hear(0, {"jobs": [("t", "q", "failed", 1)], "busy": 2, "slots": 4})
    statsd.hear(1, {"nonsense": [1], "busy": "x"})
    statsd.turned(processes=2, ready=1, reachable=True)
    assert server.hear() == []
    for _ in range(2):
        clock += 1.1
        statsd.count("process_deaths")
        statsd.turned(processes=2, ready=1, reachable=True)
        statsd.turned(processes=2, ready=1, reachable=True)
    lines = server.hear()
    assert lines.count("pgjobs.jobs.t.q.failed:1|c") == 1
    assert lines.count("pgjobs.process_deaths:1|c") == 2
    assert {"pgjobs.slots:4|g", "pgjobs.slots_busy:2|g", "pgjobs.processes_ready:1|g", "pgjobs.database_up:1|g"} <= set(
        lines
    )
    statsd.close()


@pytest.mark.parametrize("where", ["localhost", "127.0.0.1:none", "host.invalid:8125"])
def test_address_that_is_none_is_refused(where: str) -> None:
    with pytest.raises(ConfigurationError, match="--statsd"):
        Statsd(where)


def test_worker_sends_what_it_does(database_url: str, server: Server) -> None:
    with WorkerProcess(database_url, "--statsd-format", "dogstatsd", PGJOBS_STATSD=server.where).ready() as worker:
        jobs = PgJobs(database_url)
        job = jobs.enqueue("tests.apps.basic.add", 1, 2)
        job.get(15)
        wanted = (
            "pgjobs.jobs:1|c|#task:tests.apps.basic",
            "pgjobs.job_run:",
            "pgjobs.queue_jobs:",
            "pgjobs.slots:16|g",
        )
        eventually(lambda: all(any(line.startswith(each) for line in server.hear()) for each in wanted), 15)
        jobs.close()
        worker.signal(15)
        worker.leave()


def test_page_names_what_is_sent(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    section = (ROOT / "docs" / "monitoring.md").read_text().partition("## StatsD")[2].partition("## Alerts")[0]
    named = set(re.findall(r"`(?:pgjobs)?\.(\w+)`", section))
    statsd = Statsd(server.where)
    one = histogram(1.0)
    names = ("claims", "claims_lost", "jobs_released", "jobs_reaped", "database_errors", "process_deaths")
    counts = dict.fromkeys((*names, "process_restarts"), 1)
    statsd.absorb(Sums([("t", "q", "failed", 1)], {"t": one}, {"t": one}, counts))
    later = time.monotonic() + 2
    monkeypatch.setattr("pgjobs.supervisor.statsd.time.monotonic", lambda: later)
    statsd.turned(processes=1, ready=1, reachable=True)
    statsd.close()
    found = {line.partition(":")[0].split(".")[1] for line in server.hear()}
    assert named == found | {"queue_jobs", "queue_oldest_wait_seconds"}
