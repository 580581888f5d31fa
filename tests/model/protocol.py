"""What workers, applications, duties and faults may do, each as a rule that says beforehand what will come of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import psycopg
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pgjobs import statements
from pgjobs.job import Draft, Template, new_id
from pgjobs.running.run import Claim, Run
from pgjobs.statements import NO_BOUND, Expired, Range, Statement
from pgjobs.worker.claiming.reconcile import DeclaredDeadError
from tests.model import world
from tests.model.book import NEW, Book, Expected, Member, Plan
from tests.model.scene import ENDINGS, Live, Open, Scene

HOUR: Final = timedelta(hours=1)

which = st.integers(0, 11)
reply = st.sampled_from(["heard", "heard", "lost", "hangs"])
hangs = st.sampled_from([False, False, True])

ROWS: Final = """
    SELECT id, status, position, attempt, crashes, claim_id, unique_key, cancel_at IS NOT NULL, options->'suspect',
           (SELECT count(*) FROM pgjobs.failures WHERE job_id = job.id), due_at IS NOT NULL
      FROM pgjobs.jobs AS job"""

JUMPS: Final = {
    "due": """
        UPDATE pgjobs.jobs
           SET due_at = due_at + %(by)s, run_at = run_at + CASE status WHEN 'queued' THEN '0' ELSE %(by)s END
         WHERE id = ANY (%(ids)s)""",
    "expires": "UPDATE pgjobs.jobs SET expires_at = expires_at + %(by)s WHERE id = ANY (%(ids)s)",
    "started": "UPDATE pgjobs.jobs SET started_at = started_at + %(by)s WHERE id = ANY (%(ids)s)",
}


class Protocol(RuleBasedStateMachine):
    """Every rule sends a statement of the product, and says beforehand what it should return and do."""

    def __init__(self, of: Scene) -> None:
        super().__init__()
        of.anew()
        self.scene = of
        self.book = Book()
        self.live: list[Live] = []
        self.open: list[Open] = []
        self.drawn: set[int] = set()
        for _ in range(2):
            self.register()
            self.enqueue(None, None, False)

    # -- how statements are sent

    def worker(self, index: int) -> Live | None:
        return self.live[index % len(self.live)] if self.live else None

    def job(self, index: int) -> Expected | None:
        """A job whose row nobody holds."""
        free = [job for job in self.book.jobs.values() if job.id not in self.book.held]
        return free[index % len(free)] if free else None

    def keep_open(
        self, conn: psycopg.Connection[Any], plan: Plan, back: Callable[[], None], then: Callable[[], None]
    ) -> None:
        self.open.append(Open(conn, plan, back, then))
        self.book.held |= {job.id for job in plan.jobs}

    def send(
        self, batch: Sequence[Statement[Any]], plan: Plan, *, hang: bool, then: Callable[[list[Any]], None]
    ) -> list[Any]:
        """Sends statements of a worker; then is called with their results after the commit, if there is one."""
        if hang and self.scene.spare:
            results, conn, back = self.scene.hang(list(batch))
            self.keep_open(conn, plan, back, lambda: then(results))
        else:
            results = self.scene.link.batch(*batch)
            plan.commit()
            then(results)
        return results

    def duty(
        self, statement: Statement[Any], plan: Plan, hang: bool, then: Callable[[list[Any]], None] = lambda _: None
    ) -> None:
        (result,) = self.send([statement], plan, hang=hang, then=then)
        if isinstance(result, Expired):
            result = result.jobs
        assert (dict(result) if isinstance(result, list) else result) == plan.result

    def apply(self, statement: Statement[Any], plan: Plan, hang: bool) -> None:
        """Sends a statement of an application, in its own transaction where that stays open."""
        if hang and self.scene.apps:
            app = self.scene.apps.pop()
            result = self.scene.jobs.database.run(statement, app)
            self.keep_open(app, plan, lambda: self.scene.apps.append(app), lambda: None)
        else:
            result = self.scene.jobs.database.run(statement)
            plan.commit()
        assert plan.result is None or result == plan.result

    # -- applications

    @rule(delay=st.sampled_from([None, 1]), ttl=st.sampled_from([None, None, 0, 1]), hang=hangs)
    def enqueue(self, delay: int | None, ttl: int | None, hang: bool) -> None:
        job = Expected(new_id(), due_h=delay, ttl_h=ttl)
        row = Template("work", "default", 0, 3, HOUR, delay=delay and HOUR, ttl=None if ttl is None else ttl * HOUR)
        self.apply(statements.enqueue_many(row, [job.id], [Draft("{}")]), self.book.enqueue(job), hang)

    @rule(key=st.sampled_from("ab"))
    def enqueue_unique(self, key: str) -> None:
        holders = [job for job in self.book.jobs.values() if job.key == key]
        if any(job.id in self.book.held for job in holders):
            return
        job = Expected(new_id(), key=key)
        insert = "INSERT INTO pgjobs.jobs (id, task, unique_key, max_attempts) VALUES (%s, 'work', %s, 3)"
        try:
            self.scene.conn.execute(insert, [job.id, key])
        except psycopg.errors.UniqueViolation:
            assert holders
        else:
            assert not holders
            self.book.enqueue(job).commit()

    @rule(index=which, verb=st.sampled_from(["cancel", "retry", "delete"]), hang=hangs)
    def control(self, index: int, verb: str, hang: bool) -> None:
        if job := self.job(index):
            reason = ["stop"] if verb == "cancel" else []
            statement = getattr(statements, verb)([job.id], *reason)
            self.apply(statement, getattr(self.book, verb)(job), hang)

    @rule(index=which, changes=st.booleans())
    def hold(self, index: int, changes: bool) -> None:
        job = self.job(index)
        if job and self.scene.apps:
            app = self.scene.apps.pop()
            sql = "UPDATE pgjobs.jobs SET meta = '{}'" if changes else "SELECT FROM pgjobs.jobs"
            app.execute(f"{sql} WHERE id = %s{'' if changes else ' FOR UPDATE'}", [job.id])  # type: ignore[arg-type]
            self.keep_open(app, Plan(None, [job]), lambda: self.scene.apps.append(app), lambda: None)

    @rule(index=which, run=which, hang=hangs)
    def complete_within(self, index: int, run: int, hang: bool) -> None:
        live = self.worker(index)
        if live and live.runs:
            chosen = live.runs[run % len(live.runs)]
            if chosen.id not in self.book.held:
                plan = self.book.complete_within(chosen.id, chosen.claim.id)
                self.apply(statements.complete_within(chosen.id, chosen.claim.id, "1", 0.1), plan, hang)

    @rule(index=which, commit=st.booleans())
    def end_transaction(self, index: int, commit: bool) -> None:
        if self.open:
            ended = self.open.pop(index % len(self.open))
            self.book.held -= {job.id for job in ended.plan.jobs}
            ended.end(commit=commit)

    # -- workers

    @rule()
    def register(self) -> None:
        if len(self.live) < 3:
            self.live.append(Live(self.scene.link))
            self.book.workers[self.live[-1].id] = Member()

    @rule(index=which, limit=st.integers(1, 4), part=st.sampled_from(["all", "all", "below", "above"]), answer=reply)
    def claim(self, index: int, limit: int, part: str, answer: str) -> None:
        if not (live := self.worker(index)):
            return
        self.the_tables_are_as_the_model_says()  # which tells the model what positions were drawn
        positions = sorted(job.position for job in self.book.jobs.values() if job.position) or [0]
        middle = positions[len(positions) // 2]
        low, high = (middle if part == "above" else 0), (middle if part == "below" else NO_BOUND)
        claim = Claim(new_id(), 0)

        def hear(results: list[Any]) -> None:
            claim.left = len(results[0])
            if answer != "lost" and claim.left and live in self.live:
                live.claimer.known[claim.id] = claim
                live.runs += [Run(row, claim, 0.0, "pgjobs") for row in results[0]]

        plan = self.book.claim(live.id, claim.id, low, high, limit)
        statement = statements.claim(live.id, claim.id, [Range(world.LANE, low, high)], limit)
        (rows,) = self.send([statement], plan, hang=answer == "hangs", then=hear)
        assert {row[0] for row in rows} == plan.result

    @rule()
    def claim_by_nobody(self) -> None:
        statement = statements.claim(new_id(), new_id(), [Range(world.LANE)], 4)
        assert self.scene.link.one(statement) == [], "only who is registered may claim"

    @rule(index=which, endings=st.lists(st.sampled_from(sorted(ENDINGS)), min_size=1, max_size=4), answer=reply)
    def record(self, index: int, endings: list[str], answer: str) -> None:
        live = self.worker(index)
        if not (live and live.runs):
            return
        outcomes = [ENDINGS[ending](run) for ending, run in zip(endings, live.runs, strict=False)]
        completer = live.claimer._completer
        plan = self.book.record(outcomes)

        def hear(results: list[Any]) -> None:
            if answer == "lost" or live not in self.live:
                return
            kept = {outcome.run for outcome in completer.confirm(outcomes, results, self.scene.link)}
            found = {o.run: "recorded" if o.run in plan.result else self.book.found(o.run) for o in outcomes}
            assert kept == {run for run, what in found.items() if what == "kept"}
            before = {run for run, what in found.items() if what == "recorded" and run not in plan.result}
            ended = {run for run in before if self.book.jobs[run.id].status == "succeeded"}  # within a transaction
            told = {outcome.run for outcome in outcomes if outcome.ending != "released"} | ended
            assert live.heard() == tuple({run for run in told if found[run] == what} for what in ("recorded", "lost"))
            live.runs = [run for run in live.runs if found.get(run, "kept") == "kept"]

        results = self.send(completer.statements(outcomes), plan, hang=answer == "hangs", then=hear)
        assert sorted(i for each in results for i in each.ids) == sorted(run.id for run in plan.result)

    @rule(index=which)
    def forget_claims(self, index: int) -> None:
        if (live := self.worker(index)) and (gone := live.claimer.forgettable()):
            self.scene.link.one(statements.forget_claims(gone))
            for claim in gone:
                self.book.claims.pop(claim, None)

    @rule(index=which)
    def begin_suspects(self, index: int) -> None:
        live = self.worker(index)
        runs = [run for run in live.runs if run.is_suspect] if live else []
        found = [self.book.fenced(run.id, run.claim.id) for run in runs]
        plans = [self.book.begin(job) for job in found if job and job.id not in self.book.held]
        if runs:
            begun = self.scene.link.one(
                statements.begin_suspects([run.id for run in runs], [run.claim.id for run in runs])
            )
            assert {job_id for job_id, _ in begun} == {job.id for plan in plans for job in plan.jobs}
            for plan in plans:
                plan.commit()

    @rule(index=which)
    def reconcile(self, index: int) -> None:
        if not (live := self.worker(index)):
            return
        try:
            live.claimer._reconciliation.step()
        except DeclaredDeadError:
            assert not self.book.alive(live.id)
            self.live.remove(live)
            return
        assert self.book.alive(live.id)
        for claim, taken in list(self.book.claims.items()):
            if taken.worker == live.id and claim not in live.claimer.known:
                self.book.give_back(claim)
        live.events.clear()

    @rule(index=which)
    def beat(self, index: int) -> None:
        if live := self.worker(index):
            alive = self.scene.link.one(statements.beat([live.id]))
            assert set(alive) == ({live.id} if self.book.alive(live.id) else set())
            if not alive:
                self.live.remove(live)
            else:
                row = self.book.workers[live.id]
                row.seen_h, row.beat = 0, row.beat + 1

    @rule(index=which, how=st.sampled_from(["vanishes", "retires"]))
    def leave(self, index: int, how: str) -> None:
        if live := self.worker(index):
            self.live.remove(live)
            if how == "retires":
                self.scene.link.one(statements.retire(live.id))
                self.book.workers[live.id].dead = True

    # -- duties

    @rule(index=which)
    def declare_dead(self, index: int) -> None:
        if workers := list(self.book.workers):
            self.kill(workers[index % len(workers)])

    def kill(self, worker: UUID) -> None:
        if worker in self.book.workers:
            said = self.scene.link.one(statements.declare_dead([worker]))
            assert said == ([worker] if self.book.alive(worker) else [])
            self.book.workers[worker].dead = True

    @rule(times=st.sampled_from([1, 5, 7, 8]), interrupted=st.sampled_from([False, False, True]))
    def mark_silent(self, times: int, interrupted: bool) -> None:
        for worker, row in self.book.workers.items():
            seen = "UPDATE pgjobs.workers SET seen_at = clock_timestamp() + %s WHERE id = %s"
            self.scene.conn.execute(seen, [row.seen_h * HOUR, worker])
        for _ in range(times):
            dead = self.scene.link.one(statements.mark_silent(interrupted=interrupted))
            assert {worker for worker, _ in dead} == self.book.mark_silent(interrupted)

    @rule(known=st.booleans(), odd=st.booleans(), hang=hangs)
    def reap(self, known: bool, odd: bool, hang: bool) -> None:
        begun = [job for index, job in enumerate(self.book.jobs) if index % 2 == odd] if known else None
        self.duty(statements.reap(None, begun, 3, "gone"), self.book.reap(begun), hang)

    @rule()
    def forget_dead_claims(self) -> None:
        assert set(self.scene.link.one(statements.forget_dead_claims())) == self.book.forget_dead_claims()

    @rule(hang=hangs)
    def time_out(self, hang: bool) -> None:
        def rest(results: list[Any]) -> None:
            """The rest is random: an hour, for the model to know."""
            ids = [job_id for job_id, status in results[0] if status == "scheduled"]
            self.scene.conn.execute("UPDATE pgjobs.jobs SET due_at = now() + '1 hour' WHERE id = ANY (%s)", [ids])

        self.duty(statements.time_out(None, None), self.book.time_out(), hang, rest)

    @rule(hang=hangs)
    def promote(self, hang: bool) -> None:
        self.duty(statements.promote(), self.book.promote(), hang)

    @rule(hang=hangs)
    def expire(self, hang: bool) -> None:
        self.duty(statements.expire(world.EPOCH), self.book.expire(), hang)

    @rule(what=st.sampled_from([*JUMPS, "seen"]), hours=st.sampled_from([-2, -2, 2]))
    def jump(self, what: str, hours: int) -> None:
        """Time passes, or the clock is turned back."""
        for row in self.book.workers.values():
            row.seen_h += hours if what == "seen" else 0
        free = [job for job in self.book.jobs.values() if job.id not in self.book.held]
        if what != "seen":
            self.scene.conn.execute(JUMPS[what], {"by": hours * HOUR, "ids": [job.id for job in free]})
        for job in free:
            job.due_h = job.due_h + hours if what == "due" and job.due_h is not None else job.due_h
            job.ttl_h = job.ttl_h + hours if what == "expires" and job.ttl_h is not None else job.ttl_h
            job.run_h = job.run_h - hours if what == "started" and job.run_h is not None else job.run_h

    # -- what must hold

    @invariant()
    def the_tables_are_as_the_model_says(self) -> None:
        conn, book = self.scene.conn, self.book
        rows = {row[0]: row[1:] for row in conn.execute(ROWS)}
        for job_id, job in book.jobs.items():
            if job.position == NEW:
                job.position = rows[job_id][1]
                assert job.position not in self.drawn, "a position is drawn anew"
        self.drawn |= {job.position for job in book.jobs.values() if job.position is not None}
        assert rows == {job_id: job.row for job_id, job in book.jobs.items()}
        claims = {
            row[0]: row[1:] for row in conn.execute("SELECT id, worker_id, job_ids, positions FROM pgjobs.claims")
        }
        assert {claim: (row[0], dict(zip(row[1], row[2], strict=True))) for claim, row in claims.items()} == {
            claim: (taken.worker, taken.positions) for claim, taken in book.claims.items()
        }
        workers = dict(conn.execute("SELECT id, dead_at IS NULL FROM pgjobs.workers").fetchall())
        assert workers == {worker: not row.dead for worker, row in book.workers.items()}
        assert world.rollups(conn) == book.rolled
        assert world.violations(conn) == {}

    def teardown(self) -> None:
        """Whatever is open ends one way or the other; then everybody dies, and one honest worker does the rest."""
        for index in range(len(self.open)):
            self.end_transaction(0, index % 2 == 0)
        self.the_tables_are_as_the_model_says()
        left = [job for job in self.book.jobs.values() if job.status not in world.ENDED]
        ended = world.finish(self.scene.link, self.scene.conn)
        assert ended.total() == len(self.book.jobs)
        assert world.violations(self.scene.conn) == {}
        recorded = sum(world.rollups(self.scene.conn)[status] - self.book.rolled[status] for status in world.ENDED)
        assert recorded == len(left), "each job that was left has ended once"
