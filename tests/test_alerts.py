"""Alerts: judged once for the fleet, told when they begin, while they last and when they end, whoever dies between."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from pgjobs import PgJobs, statements, webhooks
from pgjobs.alerts import (
    Alert,
    FailureRate,
    Failures,
    NoWorker,
    Outbox,
    QueueAge,
    QueueLength,
    Reading,
    Rule,
    Standing,
    ToCommand,
    ToMail,
    ToSlack,
    ToWebhook,
    advance,
)
from pgjobs.connections.database import Database
from pgjobs.connections.link import Link
from pgjobs.errors import AlertError, ConfigurationError, OptionError, WebhookError
from pgjobs.events import AlertTurned, AlertUndelivered, Event, Trouble
from pgjobs.job import new_id
from pgjobs.worker.alerting import Alerting
from tests.processes import ROOT, pgjobs
from tests.support import eventually

pytestmark = pytest.mark.server

SECRET = "the secret"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Noted:
    """A target that keeps what it is told, unless it is to fail."""

    key: str = "noted"
    got: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    failing: list[Exception] = field(default_factory=list)

    def deliver(self, message_id: str, document: Mapping[str, Any], secrets: Sequence[str], /) -> None:
        if self.failing:
            raise self.failing.pop(0)
        self.got.append((message_id, document))

    @property
    def types(self) -> list[str]:
        return [document["type"] for _, document in self.got]


class Broken:
    """A rule that is broken while somebody says so."""

    def __init__(self, *, now: bool = True) -> None:
        self.now = now

    def read(self, ask: object, /) -> Reading:
        return Reading(self.now, 1.0, "it is broken" if self.now else "it is well")


@pytest.fixture
def link(jobs: PgJobs) -> Iterator[Link]:
    with closing(Link(jobs.database, "test")) as made:
        yield made


def alerting(link: Link, *alerts: Alert, emit: Any = lambda event: None) -> Alerting:
    return Alerting({alert.name: alert for alert in alerts}, [SECRET], link, emit, every_s=0.0)


# -- when somebody is told


def test_target_is_told_once_when_it_begins_and_once_when_it_ends(
    link: Link, jobs: PgJobs, conn: psycopg.Connection[Any]
) -> None:
    rule, target = Broken(), Noted()
    duty = alerting(link, Alert(rule, target, name="a"))
    for _ in range(3):
        duty.tick()
    assert target.types == ["alert.firing"]
    _, document = target.got[0]
    assert (document["data"]["alert"], document["data"]["says"], document["data"]["value"]) == (
        "a",
        "it is broken",
        1.0,
    )
    assert [(row.state, row.says, row.untold) for row in jobs.database.run(statements.alerts())] == [
        ("firing", "it is broken", 0)
    ]
    rule.now = False
    for _ in range(3):
        duty.tick()
    assert target.types == ["alert.firing", "alert.recovered"]
    assert target.got[1][1]["data"]["since"] == document["data"]["since"], "it says for how long it was broken"


def test_it_is_said_again_while_it_lasts(link: Link, conn: psycopg.Connection[Any]) -> None:
    target = Noted()
    duty = alerting(link, Alert(Broken(), target, name="a", every="1h"))
    duty.tick()
    conn.execute("UPDATE pgjobs.alerts SET told_at = told_at - interval '59 minutes'")
    duty.tick()
    assert target.types == ["alert.firing"]
    conn.execute("UPDATE pgjobs.alerts SET told_at = told_at - interval '2 minutes'")
    duty.tick()
    duty.tick()
    assert target.types == ["alert.firing", "alert.reminder"]


def test_two_workers_send_one_message(jobs: PgJobs) -> None:
    target = Noted()
    alert = Alert(Broken(), target, name="a")
    links = [Link(jobs.database, "test") for _ in range(2)]
    duties = [alerting(each, alert) for each in links]
    start = threading.Barrier(2)

    def work(duty: Alerting) -> None:
        start.wait()
        for _ in range(10):
            duty.tick()

    threads = [threading.Thread(target=work, args=(duty,)) for duty in duties]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for each in links:
        each.close()
    assert target.types == ["alert.firing"]


def test_worker_that_dies_between_marking_and_sending_leaves_it_to_another_one(
    link: Link, jobs: PgJobs, conn: psycopg.Connection[Any]
) -> None:
    class Killed(BaseException):
        """The process dies here."""

    class Dying(Noted):
        def deliver(self, message_id: str, document: Mapping[str, Any], secrets: Sequence[str], /) -> None:
            raise Killed

    with closing(Link(jobs.database, "test")) as first, pytest.raises(Killed):
        alerting(first, Alert(Broken(), Dying(), name="a")).tick()
    target = Noted()
    duty = alerting(link, Alert(Broken(), target, name="a"))
    duty.tick()
    assert target.types == [], "the first one might still be at it"
    pass_time(conn, 31)
    duty.tick()
    duty.tick()
    assert target.types == ["alert.firing"]


def pass_time(conn: psycopg.Connection[Any], seconds: float) -> None:
    """Lets so many seconds pass for the messages that wait."""
    conn.execute(
        "UPDATE pgjobs.alerts SET untold = (SELECT jsonb_agg(jsonb_set(message, '{next}',"
        " to_jsonb((message->>'next')::float8 - %s))) FROM jsonb_array_elements(untold) AS message)"
        " WHERE untold <> '[]'",
        [seconds],
    )


def test_target_that_fails_is_tried_again_with_growing_rests(link: Link, conn: psycopg.Connection[Any]) -> None:
    happened: list[Event] = []
    target = Noted(failing=[AlertError("not now"), AlertError("nor now")])
    well = Noted("well")
    duty = alerting(link, Alert(Broken(), target, well, name="a"), emit=happened.append)
    duty.tick()
    assert (target.types, well.types) == ([], ["alert.firing"])
    pass_time(conn, 31)
    duty.tick()
    pass_time(conn, 31)
    duty.tick()
    assert target.types == [], "the second rest is longer"
    pass_time(conn, 31)
    duty.tick()
    assert (target.types, well.types) == (["alert.firing"], ["alert.firing"])
    failed = [event for event in happened if isinstance(event, AlertUndelivered)]
    assert [(event.target, str(event.error), event.given_up) for event in failed] == [
        ("noted", "not now", False),
        ("noted", "nor now", False),
    ]


def test_message_that_nobody_takes_is_given_up_at_last(link: Link, conn: psycopg.Connection[Any]) -> None:
    happened: list[Event] = []
    target = Noted(failing=[AlertError("no")] * 99)
    duty = alerting(link, Alert(Broken(), target, name="a"), emit=happened.append)
    for _ in range(15):
        duty.tick()
        pass_time(conn, 3_601)
    assert [event.given_up for event in happened if isinstance(event, AlertUndelivered)] == [False] * 11 + [True]
    assert conn.execute("SELECT untold FROM pgjobs.alerts").fetchone() == ([],)


def test_recovery_is_not_told_before_the_beginning(link: Link, conn: psycopg.Connection[Any]) -> None:
    rule, target = Broken(), Noted(failing=[AlertError("not now")])
    duty = alerting(link, Alert(rule, target, name="a"))
    duty.tick()
    rule.now = False
    duty.tick()
    assert target.types == []
    for _ in range(2):
        pass_time(conn, 31)
        duty.tick()
    assert target.types == ["alert.firing", "alert.recovered"]


@pytest.mark.parametrize(
    "error", [LookupError("nothing there"), psycopg.OperationalError("another database is away"), "SELECT pg_sleep(9)"]
)
def test_rule_that_raises_keeps_no_other_from_being_judged(error: Exception | str, link: Link) -> None:
    class Raising:
        def read(self, ask: Any, /) -> Reading:
            if isinstance(error, Exception):
                raise error
            ask(statements.Statement(statements.Query("limit", "SET LOCAL statement_timeout = '50ms'"), {}, list))
            return Reading(False, 0.0, str(ask(statements.Statement(statements.Query("slow", error), {}, list))))

    happened: list[Event] = []
    target = Noted()
    alerts = [Alert(Raising(), target, name="a"), Alert(Broken(), target, name="b")]
    alerting(link, *alerts, emit=happened.append).tick()
    assert [document["data"]["alert"] for _, document in target.got] == ["b"]
    assert [event.service for event in happened if isinstance(event, Trouble)] == ["alert a"]


def test_database_that_is_away_is_no_fault_of_a_rule(link: Link) -> None:
    class Severed:
        def read(self, ask: Any, /) -> Reading:
            link.close()
            link._database = Database("postgresql://127.0.0.1:1/none", "pgjobs")  # pyright: ignore[reportPrivateUsage]
            ask(statements.alerts())
            raise AssertionError

    with pytest.raises(psycopg.OperationalError):
        alerting(link, Alert(Severed(), Noted(), name="a")).tick()


def test_alert_that_holds_for_a_moment_only_is_not_told() -> None:
    alert = Alert(Broken(), Noted(), for_="1m")
    standing = Standing("ok", NOW)
    told: list[str] = []
    for second, broken in [(0, True), (50, True), (55, False), (60, True), (119, True), (120, True), (130, False),
                           (150, True), (160, False), (219, False), (220, False)]:  # fmt: skip
        standing, kind = advance(alert, standing, broken, NOW + timedelta(seconds=second))
        if kind:
            told.append(f"{kind} {second}")
    assert told == ["firing 120", "recovered 220"]


def test_outbox_does_not_grow_for_ever() -> None:
    outbox = Outbox(Alert(Broken(), Noted()))
    for day in range(200):
        outbox.add("firing", Reading(True, 1.0, "x"), Standing("firing", NOW), NOW + timedelta(days=day))
    assert len(outbox.messages) == 100
    outbox.add("reminder", Reading(True, 1.0, "x"), Standing("firing", NOW), NOW)
    outbox.add("reminder", Reading(True, 1.0, "x"), Standing("firing", NOW), NOW)
    assert sum(message["kind"] == "reminder" for message in outbox.messages) == 1


# -- rules


def read(jobs: PgJobs, rule: Rule) -> tuple[bool, str]:
    reading = rule.read(jobs.database.run)
    return reading.broken, reading.says


def test_age_of_a_queue(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    assert read(jobs, QueueAge("5m")) == (False, "nothing waits")
    jobs.using(queue="mail").enqueue("t")
    assert not read(jobs, QueueAge("5m"))[0]
    conn.execute("UPDATE pgjobs.jobs SET created_at = now() - interval '6 minutes'")
    assert read(jobs, QueueAge("5m")) == (True, "the oldest job waits for 6 min 0 s in queue mail")
    assert read(jobs, QueueAge("5m", queue="mail"))[0]
    assert not read(jobs, QueueAge("5m", queue="other"))[0]


def test_length_of_a_queue(jobs: PgJobs) -> None:
    for _ in range(3):
        jobs.using(queue="mail").enqueue("t")
    assert read(jobs, QueueLength(3)) == (False, "3 jobs queued in queue mail")
    assert read(jobs, QueueLength(2, queue="mail"))[0]
    assert read(jobs, QueueLength(2, queue="other")) == (False, "nothing is queued")


def test_failures_of_a_task(jobs: PgJobs) -> None:
    jobs.task(name="bad", retry=1)(lambda: 1 // 0)
    jobs.task(name="good")(lambda: 1)
    assert read(jobs, Failures(task="bad")) == (False, "0 jobs of task bad failed in 15 min 0 s")
    jobs.enqueue("bad")
    for _ in range(3):
        jobs.enqueue("good")
    jobs.worker(burst=True).run()
    assert read(jobs, Failures(task="bad")) == (True, "1 job of task bad failed in 15 min 0 s")
    assert not read(jobs, Failures(task="good"))[0]
    assert not read(jobs, Failures(queue="other"))[0]
    assert not read(jobs, Failures(1))[0]
    assert read(jobs, FailureRate(0.2, least=4)) == (True, "25.0% of 4 jobs failed in 15 min 0 s")
    assert not read(jobs, FailureRate(0.25, least=4))[0]
    assert not read(jobs, FailureRate(0.2, least=5))[0]
    assert not read(jobs, FailureRate(0.2, task="good", least=1))[0]


def test_queue_that_nobody_serves(jobs: PgJobs) -> None:
    assert read(jobs, NoWorker()) == (False, "all is served")
    jobs.using(queue="mail").enqueue("t")
    assert read(jobs, NoWorker()) == (True, "no worker serves mail, where jobs wait")
    assert not read(jobs, NoWorker("other"))[0]
    worker = new_id()
    jobs.database.run(
        statements.register(worker, supervisor=worker, name="w", host="h", pid=1, process="{}", queues=["ma*"], slots=1)
    )
    assert not read(jobs, NoWorker())[0]


def test_rules_count_no_jobs(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    """What they ask for touches as few buffers on a table of many jobs as on an empty one, within bounds."""
    conn.execute(
        "INSERT INTO pgjobs.jobs (task, status, position, finished_at)"
        " SELECT 't', 'failed', NULL, now() FROM generate_series(1, 20000)"
    )
    conn.execute("VACUUM ANALYZE pgjobs.jobs")
    for statement in (statements.ended_lately(900.0, None, "t"), statements.ages_of_queues(), statements.fleet()):
        text = b"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + statement.query.text("pgjobs").encode()
        conn.execute(text, statement.params, prepare=False)
        row = conn.execute(text, statement.params, prepare=False).fetchone()
        assert row is not None
        plan = row[0][0]["Plan"]
        assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 50, statement.query


# -- targets

DOCUMENT = {
    "type": "alert.firing",
    "timestamp": "2026-01-01T00:00:00+00:00",
    "data": {"alert": "mail", "says": "it waits", "value": 7.0, "since": "2026-01-01T00:00:00+00:00"},
}


@pytest.fixture
def posted() -> Iterator[tuple[str, list[tuple[dict[str, str], bytes]]]]:
    """A server for HTTP: its URL, and what it is sent."""
    got: list[tuple[dict[str, str], bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            got.append((dict(self.headers.items()), body))
            self.send_response(500 if self.path == "/bad" else 204)
            self.end_headers()

        def log_message(self, *line: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/", got
        server.shutdown()


def test_webhook_is_signed(posted: tuple[str, list[tuple[dict[str, str], bytes]]]) -> None:
    url, got = posted
    ToWebhook(url).deliver("m1", DOCUMENT, [SECRET])
    ((headers, body),) = got
    assert webhooks.verify(headers, body, SECRET) == DOCUMENT
    with pytest.raises(ConfigurationError, match="PGJOBS_WEBHOOK_SECRET"):
        ToWebhook(url).deliver("m1", DOCUMENT, [])
    with pytest.raises(WebhookError, match="500"):
        ToWebhook(f"{url}bad").deliver("m1", DOCUMENT, [SECRET])


def test_slack_is_told_in_one_line(posted: tuple[str, list[tuple[dict[str, str], bytes]]]) -> None:
    url, got = posted
    ToSlack(url).deliver("m1", DOCUMENT, [])
    assert json.loads(got[0][1]) == {"text": "ALERT mail: it waits"}


class Mailbox:
    """Speaks enough SMTP to take mails; keeps the lines that it was sent, and those of them that came over TLS.

    Args:
        tls: what it offers TLS with: from the start, or by STARTTLS.
    """

    def __init__(self, tls: ssl.SSLContext | None = None, *, implicit: bool = False) -> None:
        self.lines: list[str] = []
        self.sealed: list[str] = []
        self._tls = tls
        self._implicit = implicit
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                conn, _ = self._server.accept()
            except OSError:
                return
            with contextlib.suppress(OSError):  # whoever is not trusted is hung up on
                self._take(self._seal(conn) if self._implicit else conn)

    def _seal(self, conn: socket.socket) -> socket.socket:
        assert self._tls is not None
        return self._tls.wrap_socket(conn, server_side=True)

    def _take(self, conn: socket.socket, greeting: bytes = b"220 here\r\n") -> None:
        is_sealed = isinstance(conn, ssl.SSLSocket)
        with conn, conn.makefile("rwb", buffering=0) as file:
            file.write(greeting)
            mail = False
            for raw in file:
                line = raw.decode().rstrip("\r\n")
                self.lines.append(line)
                if is_sealed:
                    self.sealed.append(line)
                word = line.split(" ")[0].upper()
                if mail and line != ".":
                    continue
                mail = word == "DATA"
                if word == "STARTTLS":
                    file.write(b"220 go on\r\n")
                    self._take(self._seal(conn), b"")
                    return
                file.write(f"{self._answer(word, is_sealed=is_sealed)}\r\n".encode())

    def _answer(self, word: str, *, is_sealed: bool) -> str:
        if word == "EHLO" and self._tls is not None:
            return "250-here\r\n250 AUTH PLAIN" if is_sealed else "250-here\r\n250 STARTTLS"
        code = "235" if is_sealed else "535"
        return {"DATA": "354 go on", "QUIT": "221 bye", "AUTH": f"{code} so it is"}.get(word, "250 ok")

    def close(self) -> None:
        self._server.close()


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    made = Mailbox()
    yield made
    made.close()


def test_mail_is_sent(mailbox: Mailbox) -> None:
    target = ToMail(f"smtp://127.0.0.1:{mailbox.port}/?to=ops@example.com,dev+oncall@example.com&from=q@example.com")
    target.deliver("m1", DOCUMENT, [])
    said = {line.partition(" size")[0].lower() for line in mailbox.lines}  # 3.13 writes commands in small letters
    assert {"mail from:<q@example.com>", "rcpt to:<ops@example.com>", "rcpt to:<dev+oncall@example.com>"} <= said
    assert {"Subject: ALERT mail: it waits", "Message-ID: <m1@pgjobs>", "it waits"} <= set(mailbox.lines)


def test_password_goes_over_tls_alone_and_is_shown_nowhere(mailbox: Mailbox) -> None:
    target = ToMail(f"smtp://ann:canary%2Fx@127.0.0.1:{mailbox.port}/?to=ops@example.com")
    with pytest.raises(AlertError, match="use smtps://") as caught:
        target.deliver("m1", DOCUMENT, [])
    alert = Alert(Failures(), target, ToSlack("https://hooks.slack.com/services/canary"))
    shown = f"{target!r} {target.key} {alert!r} {caught.value} {mailbox.lines} {[each.key for each in alert.targets]}"
    assert "canary" not in shown
    with pytest.raises(OptionError) as refused:
        ToMail("smtps://ann:canary@host:x/?to=ops@example.com")
    assert "canary" not in str(refused.value)


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate that signs itself, for an address or a host, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mail")])
    host = x509.IPAddress(ip_address(name)) if name[0].isdigit() else x509.DNSName(name)
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([host]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / f"{name}.crt", folder / f"{name}.key"
    paths[0].write_bytes(made.public_bytes(Encoding.PEM))
    paths[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return paths


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
@pytest.mark.parametrize(
    ("name", "trusted", "refused"),
    [
        ("127.0.0.1", True, None),
        ("127.0.0.1", False, "self-signed certificate"),
        ("mail.example.com", True, "IP address mismatch"),
    ],
)
def test_mail_goes_over_tls_to_a_server_whose_certificate_is_right(
    scheme: str, name: str, trusted: bool, refused: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain, key = certificate(tmp_path, name)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(chain))
    with closing(Mailbox(context, implicit=scheme == "smtps")) as mailbox:
        target = ToMail(f"{scheme}://ann:canary@127.0.0.1:{mailbox.port}/?to=ops@example.com&from=q@example.com")
        if refused is None:
            target.deliver("m1", DOCUMENT, [])
            assert {"Subject: ALERT mail: it waits", "Date: Thu, 01 Jan 2026 00:00:00 +0000"} <= set(mailbox.sealed)
            assert any(line.startswith("AUTH PLAIN ") for line in mailbox.sealed)
            open_words = [line.split(" ")[0] for line in mailbox.lines if line not in mailbox.sealed]
            assert {word.upper() for word in open_words} <= {"EHLO", "STARTTLS"}
        else:
            with pytest.raises(AlertError, match=refused) as caught:
                target.deliver("m1", DOCUMENT, [])
            assert "canary" not in str(caught.value)
            assert mailbox.sealed == []


def test_mail_server_out_of_reach_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(AlertError, match=r"127\.0\.0\.1 has not taken the mail: ConnectionRefusedError"):
        ToMail(f"smtp://127.0.0.1:{port}/?to=a@example.com").deliver("m1", DOCUMENT, [])


def test_command_has_it_on_standard_input_and_in_its_environment(tmp_path: Path) -> None:
    code = (
        "import json, os, sys; print(json.dumps([json.load(sys.stdin), os.environ['PGJOBS_ALERT_SAYS'],"
        " os.environ['PGJOBS_ALERT_TYPE']]), file=open(sys.argv[1], 'w'))"
    )
    path = tmp_path / "$(echo told).json"
    ToCommand(sys.executable, "-c", code, str(path)).deliver("m1", DOCUMENT, [])
    assert json.loads(path.read_text()) == [{"id": "m1", **DOCUMENT}, "ALERT mail: it waits", "alert.firing"]


def test_command_that_takes_too_long_ends_with_all_that_it_has_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgjobs.targets.TIMEOUT_S", 1.0)
    started = tmp_path / "pid"
    with pytest.raises(AlertError, match="had not ended after 1 s"):
        ToCommand("sh", "-c", f"sleep 60 & echo $! > {started}; wait").deliver("m1", DOCUMENT, [])
    pid = int(started.read_text())

    def is_gone() -> bool:
        status = Path(f"/proc/{pid}/stat")
        return not status.exists() or status.read_text().rpartition(") ")[2].startswith("Z")

    eventually(is_gone)


def test_command_that_fails_or_is_not_there_is_an_error() -> None:
    with pytest.raises(AlertError, match="ended with 3: it is broken"):
        ToCommand(sys.executable, "-c", "import sys; print('it is broken', file=sys.stderr); sys.exit(3)").deliver(
            "m1", DOCUMENT, []
        )
    with pytest.raises(AlertError, match="cannot be run: No such file"):
        ToCommand("/nowhere/notify").deliver("m1", DOCUMENT, [])


# -- what is refused


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: QueueAge("soon"), "soon"),
        (lambda: QueueAge("5m", queue="no good"), "no good"),
        (lambda: QueueLength(-1), "give a whole number"),
        (lambda: Failures(True), "give a whole number"),
        (lambda: Failures(within=0), "within is 0"),
        (lambda: FailureRate(5), "a share from 0 to 1"),
        (lambda: ToWebhook("ftp://example.com"), "no URL to post to"),
        (lambda: ToMail("https://example.com"), "write smtps://"),
        (lambda: ToMail("smtps://example.com"), "to=ops@example.com"),
        (lambda: ToMail("smtps://example.com/?to=a@b&cc=c@d"), "has cc="),
        (lambda: ToMail("smtps://example.com/?to=a@b%0D%0ABcc:x@y"), "to=ops@example.com"),
        (ToCommand, "give a program"),
        (lambda: Alert(Failures()), "has no target"),
        (lambda: Alert("x", Noted()), "give one such as QueueAge"),  # type: ignore[arg-type]
        (lambda: Alert(Failures(), "https://example.com"), "give one such as ToWebhook"),  # type: ignore[arg-type]
        (lambda: Alert(Failures(), Noted(), every=0), "every is 0"),
        (lambda: Alert(Failures(), Noted(), name=" "), "give a text"),
        (lambda: PgJobs("", alerts=[Alert(Failures(), Noted())] * 2), "two alerts are named"),
        (lambda: PgJobs("", alerts=[Failures()]), "give Alert"),  # type: ignore[list-item]
    ],
)
def test_what_cannot_be_meant_is_refused(make: Any, what: str) -> None:
    with pytest.raises(OptionError, match=what):
        make()


# -- as a whole


def test_worker_judges_the_alerts_of_its_application(database_url: str, conn: psycopg.Connection[Any]) -> None:
    target = Noted()
    app = PgJobs(database_url, alerts=[Alert(Failures(task="bad"), target, name="bad mail")])
    app.task(name="bad", retry=1)(lambda: 1 // 0)
    turned: list[Event] = []
    app.subscribe(turned.append, AlertTurned)
    app.enqueue("bad")
    app.worker(burst=True).run()
    conn.execute("UPDATE pgjobs.alerts SET checked_at = '-infinity'")  # the next one need not wait
    with app.worker():
        eventually(lambda: target.got)
    assert target.types == ["alert.firing"]
    assert len(turned) == 1
    shown = pgjobs(database_url, "alerts")
    assert "firing  bad mail: 1 job of task bad failed in 15 min 0 s (since " in shown.stdout
    (row,) = json.loads(pgjobs(database_url, "alerts", "--json").stdout)
    assert (row["name"], row["state"], row["untold"]) == ("bad mail", "firing", 0)
    app.close()


def test_worker_refuses_a_webhook_that_it_could_not_sign(database_url: str) -> None:
    alert = Alert(NoWorker(), ToWebhook("http://127.0.0.1:9/"), name="nobody")
    with pytest.raises(ConfigurationError, match="alert 'nobody' tells a webhook, and no secret is set; pass webhook_"):
        PgJobs(database_url, alerts=[alert], webhook_secret=[]).worker(burst=True).run()
    with PgJobs(database_url, alerts=[alert], webhook_secret="c2VjcmV0").worker():
        pass


def test_worker_without_alerts_has_no_connection_for_them(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    with jobs.worker():
        names = {
            name
            for (name,) in conn.execute(
                "SELECT application_name FROM pg_stat_activity WHERE datname = current_database()"
            )
        }
    assert "pgjobs alerts" not in names


def test_targets_are_tried_from_the_command_line(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "alerting_app.py").write_text(
        "import sys\n"
        "from pgjobs import Alert, PgJobs\n"
        "from pgjobs.alerts import Failures, ToCommand\n"
        "tell = ToCommand(sys.executable, '-c', 'import sys; open(sys.argv[1], \"w\").write(sys.stdin.read())',"
        f" {str(tmp_path / 'told')!r})\n"
        "jobs = PgJobs(alerts=[Alert(Failures(), tell, name='good'),\n"
        "                      Alert(Failures(), ToCommand('/nowhere'), name='bad')])\n"
    )
    options = {"PGJOBS_APP": "alerting_app", "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    assert "delivered" in pgjobs(database_url, "alerts", "test", "good", **options).stdout
    assert json.loads((tmp_path / "told").read_text())["type"] == "alert.test"
    failed = pgjobs(database_url, "alerts", "test", "bad", **options)
    assert (failed.returncode, "cannot be run" in failed.stderr) == (1, True)
    unknown = pgjobs(database_url, "alerts", "test", "none", **options)
    assert "there is: 'bad', 'good'" in unknown.stderr
