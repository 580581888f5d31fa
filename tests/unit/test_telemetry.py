"""How numbers, durations and events are worded."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgjobs import events, telemetry
from pgjobs.errors import ConfigurationError
from pgjobs.job import new_id
from pgjobs.running.outcome import Ending, Failure, Outcome
from pgjobs.running.run import Claim, Run
from pgjobs.telemetry import EACH_UP_TO, Log
from pgjobs.wording import duration, plural
from tests.unit.clock import Clock, set_by_hand

JOB = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
SECONDS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0}
MAIL_ERROR = Failure("mail.MailError", "down\nand out", "Traceback…", "f")


class Lines(logging.Handler):
    """Keeps what is logged, as level and text."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[tuple[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.kept.append((record.levelname, record.getMessage()))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return set_by_hand(telemetry, monkeypatch)


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
def log(lines: Lines, clock: Clock) -> Log:
    logger = logging.Logger("worker")
    logger.addHandler(lines)
    return Log(logger)


def outcome(ending: Ending = "succeeded", **more: Any) -> Outcome:
    now = datetime(2027, 1, 31, tzinfo=UTC)
    row: tuple[Any, ...] = (JOB, "mail.send", "default", 0, 2, 5, 0, None, now, {}, None, None)
    return Outcome(Run(row, Claim(new_id(), 1), 0.0, "pgjobs"), ending, 0.25, **more)


def successes(count: int) -> events.Recorded:
    return events.Recorded([outcome() for _ in range(count)])


# -- numbers


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 jobs"), (1, "1 job"), (2, "2 jobs"), (1_234_567, "1,234,567 jobs"), (-1, "-1 jobs")]
)
def test_a_number_agrees_with_its_noun(count: int, text: str) -> None:
    assert plural(count, "job") == text


@pytest.mark.parametrize(
    ("value_s", "text"),
    [
        (0, "under 0.1 ms"),
        (0.00012, "0.1 ms"),
        (0.0042, "4.2 ms"),
        (0.25, "250 ms"),
        (1, "1.0 s"),
        (75.25, "75.2 s"),
        (90, "1 min 30 s"),
        (3600, "60 min 0 s"),
        (5400, "1 h 30 min"),
        (90_061, "25 h 1 min"),
    ],
)
def test_a_duration_is_said_in_its_unit(value_s: float, text: str) -> None:
    assert duration(value_s) == text


@settings(deadline=None, max_examples=300)
@given(st.floats(0.0001, 1e7) | st.sampled_from([0.01, 1.0, 60.0, 90.0, 5400.0]))
def test_a_duration_is_said_without_much_loss(value_s: float) -> None:
    said = sum(
        float(number) * SECONDS[unit] for number, unit in re.findall(r"([\d.]+) (ms|s|min|h)", duration(value_s))
    )
    assert said == pytest.approx(value_s, rel=0.05, abs=0.00006)


# -- events


def said(log: Log, lines: Lines, *happened: events.Event) -> list[tuple[str, str]]:
    for event in happened:
        log(event)
    return lines.kept


@pytest.mark.parametrize(
    ("event", "level", "text"),
    [
        (
            events.WorkerStarted("w1", "mail,*", 8, "localhost/app", 3),
            "INFO",
            "worker w1 ready: queues mail,*, 8 slots, 3 tasks, database localhost/app",
        ),
        (
            events.WorkerStopping("w1", 2, 30.0),
            "INFO",
            "worker w1 stopping, waiting up to 30 s for 2 running; ask once more to stop them now",
        ),
        (events.WorkerStopping("w1", 0, 30.0), "INFO", "worker w1 stopping"),
        (events.WorkerStopped("w1", 1, 0), "INFO", "worker w1 stopped: 1 job done"),
        (events.WorkerStopped("w1", 1200, 3), "INFO", "worker w1 stopped: 1,200 jobs done, gave 3 back"),
        (
            events.Unrunnable("mail.send", "no such task", 2),
            "WARNING",
            "mail.send: no such task; its jobs wait until a worker has it",
        ),
        (events.Released(1, "not started"), "INFO", "1 job given back: not started"),
        (events.DatabaseAway("refused"), "WARNING", "database away, trying again: refused"),
        (events.DatabaseBack(2.34), "INFO", "database back after 2.3 s"),
        (
            events.DeclaredDead("w1"),
            "WARNING",
            "worker w1 was believed dead; it drops what it held and starts anew",
        ),
        (
            events.ClaimLost(outcome().run),
            "WARNING",
            f"claim lost: mail.send {JOB}; its outcome was not recorded",
        ),
        (events.Trouble("claimer", ValueError("odd")), "ERROR", "claimer: odd"),
        (
            events.Unheard("localhost/app"),
            "WARNING",
            "a pooler before localhost/app passes no notifications on, so idle workers look once a second; set "
            "PGJOBS_LISTEN_URL to the server itself and jobs start at once",
        ),
        (
            events.AlertUndelivered("late", "ops@example.org", OSError("refused"), given_up=False),
            "WARNING",
            "alert late: the message to ops@example.org is tried again: refused",
        ),
        (
            events.AlertUndelivered("late", "ops@example.org", OSError("refused"), given_up=True),
            "ERROR",
            "alert late: the message to ops@example.org given up: refused",
        ),
        (events.Event(), "DEBUG", "Event()"),
    ],
)
def test_an_event_is_a_line(log: Log, lines: Lines, event: events.Event, level: str, text: str) -> None:
    assert said(log, lines, event) == [(level, text)]


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (events.Reaped([], 0, 0), []),
        (events.Reaped(["w1", "w2"], 0, 0), ["dead: w1, w2"]),
        (events.Reaped([], 1, 0), ["1 job of dead workers requeued"]),
        (
            events.Reaped(["w1"], 5, 2),
            ["dead: w1", "5 jobs of dead workers requeued, 2 of them given up as poison"],
        ),
    ],
)
def test_reaping_is_told_by_what_was_found(log: Log, lines: Lines, event: events.Reaped, expected: list[str]) -> None:
    assert said(log, lines, event) == [("WARNING", text) for text in expected]


DIED = Failure("pgjobs.errors.ProcessDiedError", "died", "pgjobs.errors.ProcessDiedError: died", "f")


@pytest.mark.parametrize(
    ("ended", "level", "text"),
    [
        (outcome(), "INFO", f"succeeded  mail.send  {JOB}  in 250 ms"),
        (
            outcome("scheduled", reason="error", failure=MAIL_ERROR, delay_s=30.0),
            "WARNING",
            f"retry      mail.send  {JOB}  in 30.0 s (attempt 2 of 5): mail.MailError: down",
        ),
        (
            outcome("failed", reason="error", failure=MAIL_ERROR),
            "ERROR",
            f"failed     mail.send  {JOB}  (attempt 2 of 5): mail.MailError: down\nTraceback…",
        ),
        (
            outcome("failed", reason="error", failure=Failure("ValueError", "", "Traceback…", "f")),
            "ERROR",
            f"failed     mail.send  {JOB}  (attempt 2 of 5): ValueError\nTraceback…",
        ),
        (
            outcome("scheduled", reason="crash", failure=DIED, delay_s=0.0, crash=1),
            "WARNING",
            f"crashed    mail.send  {JOB}  (crash 1 of 3): pgjobs.errors.ProcessDiedError: died",
        ),
        (
            outcome("failed", reason="poison", failure=DIED, crash=1),
            "ERROR",
            f"failed     mail.send  {JOB}  (poison, 3 crashes): pgjobs.errors.ProcessDiedError: died",
        ),
        (outcome("cancelled", reason="no such user"), "INFO", f"cancelled  mail.send  {JOB}: no such user"),
        (outcome("scheduled", reason="snoozed", delay_s=5.0), "INFO", f"scheduled  mail.send  {JOB}: snoozed"),
    ],
    ids=["succeeded", "retry", "failed", "failed without a message", "crashed", "poison", "cancelled", "snoozed"],
)
def test_an_outcome_is_a_line(log: Log, lines: Lines, ended: Outcome, level: str, text: str) -> None:
    assert said(log, lines, events.Recorded([ended])) == [(level, text)]


def texts(kept: Sequence[tuple[str, str]]) -> list[str]:
    return [text.split(f"  {JOB}")[0] for _, text in kept]


def test_many_successes_in_a_second_are_summed_up_when_it_is_over(log: Log, lines: Lines, clock: Clock) -> None:
    said(log, lines, successes(EACH_UP_TO), successes(30), successes(1))
    assert texts(lines.kept) == ["succeeded  mail.send"] * EACH_UP_TO
    lines.kept.clear()
    clock.now += 1
    said(log, lines, successes(1))
    assert texts(lines.kept) == ["succeeded  31 jobs more", "succeeded  mail.send"]


def test_a_batch_of_many_successes_is_summed_up_when_the_worker_stops(log: Log, lines: Lines) -> None:
    said(log, lines, successes(EACH_UP_TO + 1), events.WorkerStopped("w1", EACH_UP_TO + 1, 0))
    assert texts(lines.kept) == [
        f"succeeded  {EACH_UP_TO + 1} jobs more",
        f"worker w1 stopped: {EACH_UP_TO + 1} jobs done",
    ]


def test_failures_are_told_one_by_one_however_many_succeed(log: Log, lines: Lines) -> None:
    failed = outcome("failed", reason="error", failure=MAIL_ERROR)
    said(log, lines, events.Recorded([*successes(100).outcomes, failed, failed]))
    assert [level for level, _ in lines.kept] == ["ERROR", "ERROR"]


# -- JSON lines


def json_line(text: str = "hello", *arguments: object, level: int = logging.INFO, **more: Any) -> dict[str, Any]:
    record = logging.Logger("mail").makeRecord(
        "mail", level, "", 0, text, arguments, more.pop("exc_info", None), None, more
    )
    telemetry.JobLogFilter().filter(record)
    line = telemetry.JsonLines("host:1").format(record)
    assert "\n" not in line
    document: dict[str, Any] = json.loads(line)
    return document


def test_json_line_says_when_how_who_and_what() -> None:
    line = json_line("%s\nto %d", "hello", 2, level=logging.WARNING)
    assert datetime.fromisoformat(line.pop("time")).tzinfo is not None
    assert line == {"level": "warning", "logger": "mail", "message": "hello\nto 2", "worker": "host:1"}


def test_json_line_of_a_job_says_whose_it_is() -> None:
    run = outcome().run
    token = telemetry.CURRENT.set(run)
    try:
        line = json_line()
    finally:
        telemetry.CURRENT.reset(token)
    assert (line["job_id"], line["task"], line["queue"], line["attempt"]) == (str(JOB), "mail.send", "default", 2)


def test_what_the_worker_says_of_a_job_names_it_in_fields() -> None:
    kept: list[logging.LogRecord] = []
    logger = logging.Logger("worker")
    handler = logging.Handler()
    handler.emit = kept.append  # type: ignore[method-assign]
    logger.addHandler(handler)
    Log(logger)(events.Recorded([outcome(), outcome("failed", reason="error", failure=MAIL_ERROR)]))
    Log(logger)(events.ClaimLost(outcome().run))
    lines = [json.loads(telemetry.JsonLines().format(record)) for record in kept]
    assert [(line["level"], line["job_id"], line["task"], line["queue"]) for line in lines] == [
        (level, str(JOB), "mail.send", "default") for level in ("error", "info", "warning")
    ]


def test_json_line_has_the_exception_and_what_was_logged_beside() -> None:
    try:
        raise ValueError("no")
    except ValueError as error:
        line = json_line(level=logging.ERROR, exc_info=(type(error), error, error.__traceback__), user=7, what=object())
    assert line["exception"].endswith("ValueError: no")
    assert line["user"] == 7
    assert "what" not in line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("to postgresql://me:s3cret@db/x?a=b", "to postgresql://me:***@db/x?a=b"),
        ("host=db password=s3cret dbname=x", "host=db password=*** dbname=x"),
        ("https://example.org:443/a@b and 12:30", "https://example.org:443/a@b and 12:30"),
    ],
)
def test_passwords_are_in_no_line(text: str, shown: str) -> None:
    assert json_line(text)["message"] == shown
    assert telemetry.without_passwords(text) == shown


def test_log_format_of_the_environment_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGJOBS_LOG_FORMAT", "xml")
    with pytest.raises(ConfigurationError, match="'xml'; write text or json"):
        telemetry.set_up_logging("info")
