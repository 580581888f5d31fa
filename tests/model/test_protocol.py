"""Any sequence of what workers, applications, duties and faults may do leaves the tables as the model says."""

from __future__ import annotations

import os
from typing import Final

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test

from tests.model.protocol import Protocol, reply, which
from tests.model.scene import ENDINGS, Scene

pytestmark = pytest.mark.server

LONG: Final = "PGJOBS_LONG_S" in os.environ
SETTINGS: Final = settings(
    max_examples=1_500 if LONG else 40,
    stateful_step_count=60 if LONG else 40,
    derandomize=not LONG,
    # A mutant need not be understood, only noticed: shrinking what is wrong would take minutes. Nor is it explained:
    # that traces every line, and takes longer than to read the few rules that are left.
    phases=[Phase.generate] if "PGJOBS_MUTANT" in os.environ else [Phase.generate, Phase.shrink],
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)

endings = st.lists(st.sampled_from(sorted(ENDINGS)), min_size=1, max_size=4)


class Stories(Protocol):
    """The rules in any order, and what seldom comes about by chance: each story is a few rules in a row."""

    @rule(index=which, endings=endings, answer=reply)
    def work(self, index: int, endings: list[str], answer: str) -> None:
        """A cycle; where its reply is lost it is sent again, as it was."""
        for ttl in (None, 1):
            self.enqueue(None, ttl, False)
        self.claim(index, 4, "all", "heard")
        self.record(index, endings, answer)
        if answer == "lost":
            self.record(index, endings, "heard")

    @rule(index=which, other=which, endings=endings, how=st.sampled_from(["reaped", "known", "timed out", "released"]))
    def take_over(self, index: int, other: int, endings: list[str], how: str) -> None:
        """Jobs of one worker come to another, and then the first one records their ends."""
        self.enqueue(None, None, False)
        self.claim(index, 4, "all", "heard")
        self.take_away(index, how)
        self.claim(other, 4, "all", "heard")
        self.record(index, endings, "heard")
        self.record(other, endings, "heard")

    def take_away(self, index: int, how: str) -> None:
        """By the reaper, who may know what had begun; by the timeouts; or because the claim is unknown to it."""
        live = self.worker(index)
        if how == "timed out":
            self.jump("started", -2)
            self.time_out(False)
            self.jump("due", -2)
            self.promote(False)
        elif live and how == "released":
            live.claimer.known.clear()
            self.reconcile(index)
        elif live:
            self.kill(live.id)
            self.reap(how == "known", False, False)
            self.forget_dead_claims()
            self.register()

    @rule(index=which, verb=st.sampled_from(["cancel", "delete"]), endings=endings)
    def stop(self, index: int, verb: str, endings: list[str]) -> None:
        """Somebody cancels or deletes what runs, and the run ends some way or other."""
        self.claim(index, 4, "all", "heard")
        for job in range(3):
            self.control(job, verb, False)
        self.record(index, endings, "heard")

    @rule(index=which, other=which, ending=st.sampled_from(["away", "snooze"]))
    def send_away(self, index: int, other: int, ending: str) -> None:
        """Jobs leave for a while, others are enqueued, and they come back."""
        self.enqueue(None, None, False)
        self.claim(index, 4, "all", "heard")
        self.record(index, [ending] * 4, "heard")
        self.enqueue(None, None, False)
        self.jump("due", -2)
        self.promote(False)
        self.claim(other, 4, "all", "heard")

    @rule(index=which, changes=st.booleans(), known=st.booleans())
    def hold_while_reaped(self, index: int, changes: bool, known: bool) -> None:
        """An application holds a job while everything is done to bring it back, and lets go."""
        self.claim(index, 4, "all", "heard")
        self.hold(index, changes)
        self.take_away(index, "known" if known else "released")
        self.end_transaction(len(self.open) - 1, False)
        self.take_away(index, "known" if known else "released")


@pytest.mark.timeout(3_600 if LONG else 600)
def test_tables_are_as_the_model_says(direct_url: str) -> None:
    made = Scene(direct_url)
    try:
        run_state_machine_as_test(lambda: Stories(made), settings=SETTINGS)
    finally:
        made.close()
