"""The protocol broken on purpose, in one place at a time: which test notices? ``--write`` keeps the answer in the docs.

Each mutant is a copy of the tree in which one text is replaced by another. The tests named for it run there one after
the other, until one fails. Some arguments: only those mutants whose names contain one of them.
AT_ONCE=1 takes them one by one.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.chaos.document import replace, table
from tests.support import suite_server

ROOT: Final = Path(__file__).parents[1]
AT_ONCE: Final = int(os.environ.get("AT_ONCE", "2"))

CLAIM, COMPLETE = "pgjobs/sql/claim.sql", "pgjobs/sql/complete.sql"
MAINTAIN, WORKERS = "pgjobs/sql/maintain.sql", "pgjobs/sql/workers.sql"
CLAIMER, COMPLETER, RECORDER = (
    "pgjobs/worker/claiming/claimer.py",
    "pgjobs/worker/claiming/completer.py",
    "pgjobs/worker/claiming/recorder.py",
)
HINTS, LIFE = "pgjobs/worker/claiming/hints.py", "pgjobs/worker/life.py"
SWEEP, SWEEPS = "pgjobs/worker/claiming/sweep.py", "tests/unit/test_sweep.py"
RECONCILE = "pgjobs/worker/claiming/reconcile.py"
PACE, PACES = "pgjobs/worker/claiming/pace.py", "tests/unit/test_pace.py"
LANES, SLOTS, OUTCOME = (
    "pgjobs/worker/claiming/lanes.py",
    "pgjobs/worker/claiming/slots.py",
    "pgjobs/running/outcome.py",
)
SUSPECT = "pgjobs/worker/claiming/suspects.py"
MAINTENANCE, DUTIES = "pgjobs/worker/maintenance.py", "tests/test_duties.py"
REPORT, STEER = "pgjobs/sql/report.sql", "tests/sql/test_steer.py"
APART, POOLED = "pgjobs/worker/executors/apart.py", "pgjobs/worker/executors/pooled.py"

MODEL = "tests/model"
FENCING, SUSPECTS, TIMEOUTS = "tests/test_fencing.py", "tests/test_suspects.py", "tests/test_timeouts.py"
PAIRS, CYCLE = "tests/sql/test_interleavings.py", "tests/sql/test_cycle.py"
WORKER, CONTROL, UNIQUE = "tests/test_worker.py", "tests/test_control.py", "tests/test_unique.py"
OUTPUT = tuple(f"tests/test_executors.py::{name}" for name in (
    "test_captured_run_leaves_its_process_as_it_was",
    "test_output_is_that_of_the_run_alone_and_any_bytes_are_kept",
    "test_what_came_after_the_end_of_a_run_is_not_the_next_ones",
    "test_what_a_run_writes_is_kept",
    "test_what_a_run_wrote_before_it_was_killed_is_kept",
))  # fmt: skip
BOUNDS, SLOT, ENDS = "tests/unit/test_lanes.py", "tests/unit/test_slots.py", "tests/unit/test_outcome.py"


@dataclass(frozen=True)
class Mutant:
    """One breakage: the text after anchor is replaced, so many times. tests run in this order until one fails."""

    name: str
    file: str
    anchor: str
    old: str
    new: str
    tests: tuple[str, ...] = (MODEL, FENCING, PAIRS)
    times: int = 1

    def break_(self, tree: Path) -> None:
        """Breaks the tree."""
        path = tree / self.file
        head, anchor, rest = path.read_text().partition(self.anchor)
        assert rest.count(self.old) >= self.times, f"{self.name}: {self.file} has no {self.old!r} after {self.anchor!r}"
        path.write_text(head + anchor + rest.replace(self.old, self.new, self.times))


def beside(second: str, first: str = "delete") -> str:
    """The test that runs a statement while another one is in an open transaction."""
    return f"{PAIRS}::test_nothing_waits_and_nothing_is_lost[{first}-{second}]"


def moved_on(write: str) -> str:
    """The test of a statement under a claim that has moved on."""
    return f"{PAIRS}::test_claim_that_has_moved_on_writes_nothing_while_another_runs_the_job[{write}]"


def taken(case: str) -> str:
    """The test of a job that was taken from its claim: by what, and in which state."""
    return f"{PAIRS}::test_job_that_was_taken_from_its_claim_is_under_it_no_more[{case}]"


def _defining(function: str) -> str:
    """The revision that was the last to define a function."""
    scripts = [path for path in sorted((ROOT / "migrations" / "versions").glob("*.sql")) if ".down." not in path.name]
    definition = re.compile(rf"^CREATE (OR REPLACE )?FUNCTION pgjobs.{function}\(", re.MULTILINE)
    return next(str(path.relative_to(ROOT)) for path in reversed(scripts) if definition.search(path.read_text()))


def _query(name: str) -> str:
    return f"-- name: {name}\n"


FENCE = "job.claim_id = held.claim_id AND job.status = 'running'"
LATERAL = "WHERE id = held.id AND claim_id = held.claim_id AND status = 'running'"
DONE = "WHERE id = done.id AND claim_id = done.claim_id AND status = 'running'"
SILENT = f"{PAIRS}::test_worker_that_has_beaten_or_was_not_watched_is_not_believed_dead"
SKIP = "FOR UPDATE SKIP LOCKED"
KEPT_KEY = "unique_key = CASE WHEN job.options ? 'unique_for' THEN job.unique_key END"

MUTANTS: Final = (
    # claim
    Mutant("claim skips no locked rows", CLAIM, _query("claim"), SKIP, "FOR UPDATE", (beside("claim"), MODEL)),
    Mutant("claim by a dead worker", CLAIM, _query("claim"), " AND dead_at IS NULL", "", (MODEL, FENCING)),
    Mutant("claim by a worker that is not there", CLAIM, _query("claim"),
           "WHERE EXISTS (SELECT FROM pgjobs.workers WHERE id = %(worker)s::uuid AND dead_at IS NULL)",
           "WHERE NOT EXISTS (SELECT FROM pgjobs.workers WHERE id = %(worker)s::uuid AND dead_at IS NOT NULL)"),
    Mutant("claim of expired jobs", CLAIM, _query("claim"), "AND (expires_at IS NULL OR expires_at > now())", ""),
    Mutant("claim in no order", CLAIM, _query("claim"), "ORDER BY position\n", "ORDER BY position DESC\n"),
    Mutant("claim leaves the old fence", CLAIM, _query("claim"),
           "claim_id = %(claim)s::uuid,", "claim_id = coalesce(claim_id, %(claim)s::uuid),"),
    Mutant("claim notes no job", CLAIM, _query("claim"), "array_agg(id), array_agg(position)", "'{}', '{}'"),
    Mutant("claim beyond its range", CLAIM, _query("claim"), " AND position < lane.high", "",
           ("tests/sql/test_lanes.py",)),
    # complete
    Mutant("complete without the fence", COMPLETE, _query("complete"), " AND claim_id = done.claim_id", "",
           (f"{PAIRS}::test_reaper_and_completion_in_every_order_record_one_success", MODEL)),
    Mutant("complete whatever the status", COMPLETE, _query("complete"), " AND status = 'running'", ""),
    Mutant("complete waits for locked rows", COMPLETE, _query("complete"), SKIP, "FOR UPDATE",
           (beside("complete"), MODEL)),
    Mutant("complete keeps the unique key", COMPLETE, _query("complete"), KEPT_KEY, "unique_key = job.unique_key"),
    Mutant("complete without a rollup", COMPLETE, _query("complete"),
           "FROM completed\n", "FROM completed WHERE false\n"),
    # settle
    Mutant("settle without the fence", COMPLETE, _query("settle"), " AND claim_id = done.claim_id", ""),
    Mutant("settle whatever the status", COMPLETE, _query("settle"), " AND status = 'running'", ""),
    Mutant("settle waits for locked rows", COMPLETE, _query("settle"), SKIP, "FOR UPDATE",
           (beside("settle"), MODEL)),
    Mutant("settle retries what was cancelled", COMPLETE, _query("settle"),
           "WHEN done.status = 'scheduled' AND job.cancel_at IS NOT NULL THEN 'cancelled' ELSE",
           "WHEN false THEN '' ELSE"),
    Mutant("settle refunds nothing", COMPLETE, _query("settle"), "job.attempt - mine.refund", "job.attempt"),
    Mutant("settle counts no crash", COMPLETE, _query("settle"), "job.crashes + mine.crash", "job.crashes"),
    Mutant("settle drops the key of a retry", COMPLETE, _query("settle"),
           "unique_key = CASE WHEN mine.ending = 'scheduled' OR job.options ? 'unique_for' THEN job.unique_key END",
           "unique_key = NULL",
           (f"{UNIQUE}::test_key_is_kept_while_the_job_rests_between_attempts", MODEL)),
    Mutant("settle leaves a suspect one", COMPLETE, _query("settle"),
           "THEN job.options - 'suspect'", "THEN job.options",
           (SUSPECTS,)),
    Mutant("settle notes what it has not settled", COMPLETE, _query("settle"), "      JOIN settled USING (id)\n", "",
           (f"{PAIRS}::test_failure_is_noted_once_though_its_row_was_written_while_it_was_recorded",)),
    Mutant("jobs follow a run whose claim is lost", REPORT, _query("enqueue_children"),
           " AND parent.claim_id = child.claim", "",
           (f"{PAIRS}::test_jobs_that_follow_are_those_of_the_run_whose_end_is_recorded",)),
    # complete_within, release
    Mutant("complete_within without the fence", COMPLETE, _query("complete_within"),
           " AND claim_id = %(claim)s::uuid", " AND %(claim)s::uuid IS NOT NULL", (moved_on("complete_within"), MODEL)),
    Mutant("complete_within whatever the status", COMPLETE, _query("complete_within"), " AND status = 'running'", "",
           (beside("complete_within", "complete"), FENCING)),
    Mutant("release without the fence", COMPLETE, _query("release"), FENCE, "job.status = 'running'",
           (moved_on("release"), MODEL)),
    Mutant("release whatever the status", COMPLETE, _query("release"), FENCE, "job.claim_id = held.claim_id"),
    Mutant("release of any job under any claim", COMPLETE, _query("release"),
           "claim.id || ' ' || held.id = ANY (%(runs)s::text[])",
           "held.id::text = ANY (SELECT split_part(run, ' ', 2) FROM unnest(%(runs)s::text[]) AS run)",
           (f"{PAIRS}::test_former_run_is_given_back_together_with_another_and_the_job_runs_on_under_its_new_claim",)),
    Mutant("release waits for locked rows", COMPLETE, _query("release"), "FOR UPDATE OF job SKIP LOCKED",
           "FOR UPDATE OF job", (beside("release"), MODEL)),
    Mutant("release charges the attempt", COMPLETE, _query("release"), "greatest(job.attempt - 1, 0)", "job.attempt"),
    Mutant("release to the end of the lane", COMPLETE, _query("release"), "THEN mine.position END",
           "THEN nextval('pgjobs.positions') END"),
    Mutant("release keeps the fence", COMPLETE, _query("release"), "claim_id = NULL", "claim_id = job.claim_id"),
    Mutant("release revives what was cancelled", COMPLETE, _query("release"),
           "CASE WHEN job.cancel_at IS NOT NULL THEN 'cancelled'\n                WHEN EXISTS", "CASE WHEN EXISTS",
           (f"{CONTROL}::test_job_cancelled_while_it_runs_is_not_revived_when_its_claim_gives_it_back", MODEL)),
    Mutant("begin_suspects without the fence", COMPLETE, _query("begin_suspects"), " AND claim_id = begins.claim_id",
           "", (moved_on("begin_suspects"),)),
    # reap, forget, time_out, promote, expire
    Mutant("reap without the fence", MAINTAIN, _query("reap"), " AND claim_id = held.claim_id", "",
           (moved_on("reap"), MODEL)),
    Mutant("reap whatever the status", MAINTAIN, _query("reap"),
           LATERAL, LATERAL.removesuffix(" AND status = 'running'")),
    Mutant("reap of the living", MAINTAIN, _query("reap"), "WHERE worker.dead_at IS NOT NULL", "WHERE true"),
    Mutant("reap waits for locked rows", MAINTAIN, _query("reap"), SKIP, "FOR UPDATE",
           (beside("reap"), MODEL)),
    Mutant("reap keeps the fence", MAINTAIN, _query("reap"), "claim_id = NULL", "claim_id = job.claim_id"),
    Mutant("reap charges the attempt", MAINTAIN, _query("reap"), "greatest(job.attempt - 1, 0)", "job.attempt"),
    Mutant("reap counts no crash", MAINTAIN, _query("reap"), "32766) + ending.crash,", "32766),"),
    Mutant("reap keeps the place of a second crash", MAINTAIN, _query("reap"),
           "OR ending.crashes_before = 0", "OR true",
           (f"{FENCING}::test_job_returns_to_its_place_after_one_crash_and_goes_behind_the_others_after_more", MODEL)),
    Mutant("reap revives what was cancelled", MAINTAIN, _query("reap"), "WHEN cancelled THEN 'cancelled' ", ""),
    Mutant("reap is stopped by a run_at to come", MAINTAIN, _query("reap"),
           "run_at = CASE WHEN job.run_at > now() THEN now() ELSE job.run_at END", "run_at = job.run_at",
           ("tests/sql/test_raw_sql.py::test_clock_that_was_turned_back_keeps_no_job_from_going_back", MODEL)),
    Mutant("claims of the dead go with a job running", MAINTAIN, _query("forget_dead_claims"),
           "AND job.status = 'running'", "AND false"),
    Mutant("claims of the living go", MAINTAIN, _query("forget_dead_claims"), "worker.dead_at IS NOT NULL", "true"),
    Mutant("time_out without the fence", MAINTAIN, _query("time_out"), " AND claim_id = held.claim_id", "",
           (f"{PAIRS}::test_worker_times_out_nothing_that_another_runs_meanwhile", MODEL)),
    Mutant("time_out waits for locked rows", MAINTAIN, _query("time_out"), SKIP, "FOR UPDATE",
           (beside("time_out"), MODEL)),
    Mutant("time_out keeps the fence", MAINTAIN, _query("time_out"), "claim_id = NULL", "claim_id = job.claim_id",
           (taken("time_out-running"), MODEL)),
    Mutant("promote without a position", MAINTAIN, _query("promote"), "position = place.position",
           "position = NULL"),
    Mutant("promote before it is due", MAINTAIN, _query("promote"), "AND due_at <= now()", ""),
    Mutant("promote waits for locked rows", MAINTAIN, _query("promote"), SKIP, "FOR UPDATE",
           (beside("promote", "cancel"), MODEL)),
    Mutant("expire of running jobs", MAINTAIN, _query("expire"), "('queued', 'scheduled', 'blocked')",
           "('queued', 'scheduled', 'blocked', 'running')", (f"{PAIRS}::test_job_that_runs_does_not_expire", MODEL)),
    Mutant("expire of ended jobs", MAINTAIN, _query("expire"), "AND status IN ('queued', 'scheduled', 'blocked')", ""),
    Mutant("expire keeps the unique key", MAINTAIN, _query("expire"), KEPT_KEY, "unique_key = job.unique_key",
           (f"{UNIQUE}::test_key_is_given_up_at_every_end_unless_it_is_for_a_period", MODEL)),
    # workers
    Mutant("an outage counts as silence", MAINTAIN, _query("mark_silent"),
           "worker.misses >= 6 AND NOT %(interrupted)s::bool", "worker.misses >= 6", (SILENT, MODEL)),
    Mutant("a beat does not clear misses", MAINTAIN, _query("mark_silent"),
           "CASE WHEN worker.beat = worker.missed_beat AND", "CASE WHEN", (SILENT, MODEL)),
    Mutant("dead after one miss", MAINTAIN, _query("mark_silent"), "worker.misses >= 6", "worker.misses >= 0",
           (f"{PAIRS}::test_worker_is_believed_dead_at_the_seventh_miss_and_not_before",)),
    Mutant("mark_silent waits for a beat", MAINTAIN, _query("mark_silent"), SKIP, "FOR UPDATE",
           (beside("mark_silent", "beat"),)),
    Mutant("a beat revives the dead", WORKERS, _query("beat"), " AND dead_at IS NULL", ""),
    Mutant("a worker that leaves is deleted", WORKERS, _query("retire"),
           "UPDATE pgjobs.workers\n   SET dead_at = now()\n",
           "DELETE FROM pgjobs.workers\n"),
    # cancel, retry, delete
    Mutant("cancel ends what runs", _defining("cancel"), "FUNCTION pgjobs.cancel",
           "CASE WHEN job.status = 'running' THEN 'running' ELSE 'cancelled' END", "'cancelled'"),
    Mutant("cancel passes over what somebody holds", _defining("cancel"), "FUNCTION pgjobs.cancel",
           "FOR UPDATE;", "LIMIT 0;", (beside("cancel", "complete"), MODEL)),
    Mutant("cancel of ended jobs", _defining("cancel"), "FUNCTION pgjobs.cancel",
           "AND job.status IN ('scheduled', 'blocked', 'queued', 'running')", "", (CONTROL, MODEL), times=3),
    Mutant("retry of running jobs", _defining("retry"), "FUNCTION pgjobs.retry",
           "('succeeded', 'failed', 'cancelled', 'expired')\n           AND",
           "('succeeded', 'failed', 'cancelled', 'expired', 'running')\n           AND", (CONTROL, PAIRS)),
    Mutant("retry keeps the fence", _defining("retry"), "FUNCTION pgjobs.retry",
           "claim_id = NULL,", "claim_id = job.claim_id,", (taken("retry-succeeded"), MODEL)),
    Mutant("retry keeps the ttl", _defining("retry"), "FUNCTION pgjobs.retry", "expires_at = NULL, ", "",
           ("tests/test_time_options.py::test_job_that_failed_of_its_ttl_can_be_retried", MODEL)),
    Mutant("delete leaves the failures", _defining("delete"), "FUNCTION pgjobs.delete",
           "failure.job_id = gone.id", "false", (CONTROL, MODEL)),
    # the worker
    Mutant("reconcile removed", RECONCILE, "def step",
           "if self._in_doubt or claim_id not in self._known():", "if False:"),
    Mutant("reconcile forgets a claim under which a job runs", RECONCILE, "def _release_unheld",
           "if not left and len(unheld) == len(job_ids):", "if True:"),
    Mutant("a dead worker goes on", RECONCILE, "def step", "if not is_alive:", "if False:"),
    Mutant("outcomes of a failed batch are dropped", RECORDER, "def broke", "self._slots.put_back(outcomes)", "pass",
           (FENCING,)),
    Mutant("a worker leaves while its claim is on its way", LIFE, "def is_done", "self.claimer.resting and ", "",
           (WORKER,)),
    Mutant("what has arrived is forgotten where the next cycle fails", CLAIMER, "def tick",
           "self._begin_arrived()\n            self._ticking", "self._ticking", (CYCLE,)),
    Mutant("outcomes are dropped where something goes wrong meanwhile", RECORDER, "def broke",
           "not isinstance(error, psycopg.Error | UnicodeError) or ", "", (CYCLE,)),
    Mutant("outcomes are dropped where no statement can be made of them", RECORDER, "def statements",
           "self._slots.put_back(outcomes)", "pass", (CYCLE,)),
    Mutant("room forgets what has arrived", CLAIMER, "def _room", "room(arrived)", "room()", (CYCLE,)),
    Mutant("jobs begin before the next cycle's COMMIT is sent", "pgjobs/connections/pipeline.py", "def run",
           "not pgconn.flush() and ", "", (CYCLE,)),
    Mutant("a worker leaves with what a lost reply has claimed", CLAIMER, "def give_back",
           "link.one(statements.release([claim_id] * len(job_ids), job_ids))", "pass", (WORKER,)),
    Mutant("a batch recorded apart counts as under way", RECORDER, "def broke",
           "self._under_way = False", "pass", (FENCING,)),
    Mutant("what runs is not owed", CLAIMER, "def _owed", "*self._slots.owed, ", "", ("tests/test_outage.py", FENCING)),
    Mutant("jobs below the bound are not looked for", HINTS, "def look_below",
           "for lane, low, high in ranges:", "for lane, low, high in ():", ("tests/sql/test_lanes.py", WORKER)),
    Mutant("an outcome whose row is held is dropped", COMPLETER, "def _look_up", "kept.append(outcome)\n", "pass\n"),
    Mutant("a completion sent twice is lost", COMPLETER, "def _look_up", "            if ours:\n",
           "            if False:\n"),
    Mutant("a claim is forgotten early", COMPLETER, "def _settle", "if claim.left == 0:", "if claim.left >= 0:",
           (f"{FENCING}::test_claim_stays_until_the_last_of_its_jobs_has_ended", MODEL)),
    Mutant("two runs of a job are confused", COMPLETER, "def confirm", " and runs[o.run.id] == 1", ""),
    Mutant("one bad result spoils its batch", COMPLETER, "def record_apart", "if len(outcomes) > 1:", "if False:",
           (f"{FENCING}::test_result_that_the_database_refuses_fails_its_job_alone", MODEL)),
    Mutant("a bound never rises", LANES, "def note(",
           "self.low = max(self.low, min(ripe, current))", "pass", (BOUNDS,)),
    Mutant("a bound does not wait for the horizon", LANES, "def note(", "xmin >= horizon and ", "", (BOUNDS,)),
    Mutant("a bound waits for ever", LANES, "def note(", "elif now - noted_at > PATIENCE_S:", "elif False:", (BOUNDS,)),
    Mutant("a bound sinks", LANES, "def note(", "max(self.low, min(ripe, current))", "min(ripe, current)", (BOUNDS,)),
    Mutant("a bound rises past a live position", LANES, "def note(", "min(ripe, current)", "ripe", (BOUNDS,)),
    Mutant("what commits late is forgotten", LANES, "def note(", "elif xmin >= self._doubt:", "elif False:", (BOUNDS,)),
    Mutant("an empty lane rises to what was just drawn", LANES, "def refresh", "self._drawn, xmin", "rows[0][3], xmin",
           (BOUNDS,)),
    Mutant("bounds outlive a reconnect", LANES, "def reset", "Bound(now, bound.rank)", "bound", (BOUNDS,)),
    Mutant("a new lane waits for the next sweep", SWEEP, "def due",
           "self._hurried_at if hurried else self._at", "self._at", (SWEEPS,)),
    Mutant("a step of the sweep forgets that it was asked meanwhile", SWEEP, "def step", "self._begun = True",
           "self._begun = True; self._asked = False", (SWEEPS,)),
    Mutant("promote in the order of ids", MAINTAIN, _query("promote"), "ORDER BY due_at, id\n            OFFSET 0",
           "ORDER BY id\n            OFFSET 0", (DUTIES,)),
    Mutant("suspect that was away goes behind", MAINTAIN, _query("promote"), "CASE WHEN returns THEN kept ELSE",
           "CASE WHEN false THEN kept ELSE", (SUSPECTS,)),
    Mutant("suspect returns to a place never drawn", MAINTAIN, _query("promote"),
           "kept IS NOT NULL AND abs(kept) <= (SELECT last_value FROM pgjobs.positions)", "kept IS NOT NULL",
           (SUSPECTS,)),
    Mutant("suspects begin behind what waits", SLOTS, "def add_first", "extendleft(reversed(runs))", "extend(runs)",
           (SLOT,)),
    Mutant("time as a suspect counts as time for a slot", SLOTS, "def take_stale", "self._waiting[0].ready",
           "self._waiting[0].received", (SLOT,)),
    Mutant("suspects go while others begin", SUSPECT, "def _send_away", "KEPT_S if now", "PATIENCE_S if now",
           ("tests/unit/test_suspects.py",)),
    Mutant("suspects take the room of others", CLAIMER, "def _room", "room = self._slots.room(arrived)",
           "room = max(0, self._slots.room(arrived) - len(self._suspects))", (SUSPECTS,)),
    Mutant("a look that was held up puts off the next", "pgjobs/worker/service.py", "def after",
           "min(took_s, self._before_s)", "took_s", (SWEEPS,)),
    Mutant("the worker rests past its sweep", CLAIMER, "def _rest_s", ", self._sweep.due_in_s", "",
           ("tests/sql/test_lanes.py",)),
    Mutant("what was told of many queues is believed no more", CLAIMER, "def _begin_arrived",
           "self._hints.proved(rows)", "pass", ("tests/unit/test_hints.py", "tests/sql/test_lanes.py")),
    Mutant("nobody tells of the queues that a worker has forgotten", PACE, "def flag", " and not (forgetful and room)",
           "", (PACES, "tests/sql/test_lanes.py")),
    Mutant("a duty that fails stays the most overdue", MAINTENANCE, "def _take_one",
           "self._link.one(statements.put_off_duty(duty.name))", "pass", (DUTIES,)),
    Mutant("hold of what nobody has locked", _defining("hold"), "FUNCTION pgjobs.hold(",
           "         ORDER BY job.id\n           FOR UPDATE SKIP LOCKED\n", "", (STEER,)),
    Mutant("delete of what stands otherwise by now", _defining("delete"), "FUNCTION pgjobs.delete(",
           "           AND (delete.statuses IS NULL OR job.status = ANY (delete.statuses))\n", "", (STEER,)),
    Mutant("a run is stopped by its job alone", SLOTS, "def cancel", "if run.key in stops and",
           "if run.id in {job for job, _ in stops} and", (CONTROL,)),
    Mutant("what was recorded apart is recorded again", RECORDER, "def _none_dropped",
           "if not outcome.run.settled", "if True", (CYCLE,)),
    Mutant("an outcome is dropped where its look-up fails", RECORDER, "def _none_dropped",
           "self._slots.put_back(", "list(", (CYCLE,)),
    Mutant("a claim is dropped where the next batch was slow", CLAIMER, "def _take", "self._begin_arrived()", "pass",
           (CYCLE,)),
    Mutant("the idle flag is renewed at rest alone", PACE, "def flag", "due = now - self._flagged_at > FLAG_S",
           "due = busy_s is None and now - self._flagged_at > FLAG_S", (PACES, WORKER)),
    Mutant("an end is taken from a run that was given up", SLOTS, "def finish",
           "if run not in self._running:", "if False:",
           (SLOT, WORKER, TIMEOUTS)),
    Mutant("a slot is not given back", SLOTS, "def finish", "self._free.append(run.slot)", "pass", (SLOT, WORKER)),
    Mutant("stale jobs stay", SLOTS, "def take_stale", "return self._take_waiting()", "return []", (SLOT, WORKER)),
    Mutant("a rolled-back completion succeeds", OUTCOME, "def returned",
           "if run.completed:", "if False:", (FENCING, ENDS)),
    Mutant("attempts without end", OUTCOME, "def failed",
           "if run.attempt < run.max_attempts:", "if True:", (ENDS, WORKER)),
    Mutant("crashes without end", OUTCOME, "def crashed", "run.crashes + 1 >= MAX_CRASHES", "False", (ENDS, MODEL)),
    Mutant("a snooze burns an attempt", OUTCOME, "def raised", "refund=1", "refund=0", (ENDS, WORKER)),
    # what a run writes
    Mutant("captured output goes on after its run", POOLED, "def _captured", "os.dup2(kept, number)", "pass", OUTPUT),
    Mutant("captured output leaves files open", POOLED, "def _captured", "os.close(kept)", "pass", OUTPUT),
    Mutant("captured output has no stderr", POOLED, "def _captured", "os.dup2(output, 2)", "pass", OUTPUT),
    Mutant("captured output is of every run", POOLED, "def _one", "if given.capture else", "if True else", OUTPUT),
    Mutant("captured output has what came late", APART, "def begin", "self.read_output()", "pass", OUTPUT),
    Mutant("captured output has the run before", APART, "def begin", "self._written = run, None, None, b\"\"",
           "self._written = run, None, None, self._written", OUTPUT),
    Mutant("captured output is not read to its end", APART, "def account", "for _ in range(64):",
           "for _ in range(0):", OUTPUT),
    Mutant("captured output is not cut", APART, "def read_output", "[-MAX_OUTPUT:]", "", OUTPUT),
    Mutant("captured output stands open", APART, "def account", "run.task.signature.seal(", "(",
           ("tests/test_encryption.py",)),
    Mutant("captured output has what no row can hold", APART, "def account", "storable(", "(", OUTPUT),
    Mutant("captured output must be UTF-8", APART, "def account", 'errors="replace"', 'errors="strict"', OUTPUT),
    Mutant("captured output of nothing is none", APART, "def account", "or output is not None", "and output", OUTPUT),
)  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """The test that failed first; None where all passed."""

    mutant: Mutant
    test: str | None

    @property
    def row(self) -> list[str]:
        """For the table."""
        return [self.mutant.name, self.mutant.file.rpartition("/")[2], self.test or "**nobody notices**"]


def verdict(mutant: Mutant, url: str) -> Verdict:
    """Breaks a copy of the tree, and runs the mutant's tests there until one fails."""
    with tempfile.TemporaryDirectory(prefix="pgjobs-mutant-") as directory:
        tree = Path(directory, "tree")
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".*", "dist", "__pycache__"))
        mutant.break_(tree)
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "-p",
            "no:randomly",
            "-p",
            "no:cacheprovider",
            *mutant.tests,
        ]
        environment = {**os.environ, "PGJOBS_TEST_URL": url, "PGJOBS_MUTANT": mutant.name}
        done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    failed = re.search(r"^(?:FAILED|ERROR) (tests/.+?)(?: - |$)", done.stdout, re.MULTILINE)
    assert done.returncode in (0, 1), done.stdout[-2_000:]
    print(f"{mutant.name}: {failed[1] if failed else 'nobody notices'}", file=sys.stderr, flush=True)
    return Verdict(mutant, failed[1] if failed else None)


def chosen(words: Sequence[str]) -> list[Mutant]:
    """The mutants whose names contain one of the words; all without words."""
    return [mutant for mutant in MUTANTS if not words or any(word in mutant.name for word in words)]


def main() -> None:
    """Prints the table; fails where a mutant lives."""
    words = [word for word in sys.argv[1:] if word != "--write"]
    with suite_server() as url, ThreadPoolExecutor(AT_ONCE) as pool:
        verdicts = list(pool.map(lambda mutant: verdict(mutant, url), chosen(words)))
    killed = sum(each.test is not None for each in verdicts)
    text = table(["Broken", "Where", "The test that failed first"], [each.row for each in verdicts])
    text = f"{killed} of {len(verdicts)} are noticed.\n\n{text}"
    print(text)
    if "--write" in sys.argv:
        replace("mutants", text)
    sys.exit(killed < len(verdicts))


if __name__ == "__main__":
    main()
