/* Claim, beat, reap and completion of one job by two workers, whose every statement may come arbitrarily late.

   Each atomic block is one transaction of the product, named after its query; one that changes nothing is none. Faults are bounded: a process that dies, a
   reply that is lost after its commit, a living worker that is believed dead, an application that holds the job's row.

   spin -run claims.pml                  nothing is wrong
   spin -run -DNO_FENCE claims.pml       a variant that is: see BROKEN in tests/test_spec.py

   Promela, for spin 6.5. What is proven: the job is completed at most once, it is never running under a claim that is
   not in the table, and in the end it is completed. */

#define CLAIMS 7
#define LIVES 5

mtype = { QUEUED, RUNNING, DONE };

mtype status = QUEUED;          /* jobs.status */
byte fence = 0;                 /* jobs.claim_id; 0 is NULL */
byte owner[CLAIMS];             /* claims.worker_id, by claims.id; 0: there is no such row */
bool dead[LIVES];               /* workers.dead_at IS NOT NULL */
bool there[LIVES];              /* there is a workers row */
bool beats[LIVES];              /* its process lives, and so its beat goes on */
bool held = false;              /* an application holds the row of the job */
byte completions = 0;

byte next_claim = 1, next_life = 1;
byte deaths = 1, losses = 1, mistakes = 1, holds = 1;

#if defined(NO_FENCE)
#define MINE(c) (status == RUNNING)
#elif defined(NO_STATUS)
#define MINE(c) (fence == c)
#else
#define MINE(c) (status == RUNNING && fence == c)
#endif

inline register() {
    atomic { me = next_life; next_life++; there[me] = true; beats[me] = true; mine = 0 }
}

active [2] proctype Worker() {
    byte me, mine, other;

    register();
    do
    :: true ->
        /* the process dies, and its supervisor starts another one */
        if
        :: atomic { deaths > 0 && next_life < LIVES -> deaths--; beats[me] = false }; register()
        :: true
        fi;

        /* beat: it updates no row, so drop everything and begin anew */
        if
        :: atomic { dead[me] -> beats[me] = false }; register()
        :: !dead[me]
        fi;

#ifndef NO_RECONCILE
        /* reconcile: release what we hold in the table's eyes, and have never heard of */
        atomic {
            if
            :: status == RUNNING && owner[fence] == me && fence != mine && !held ->
                owner[fence] = 0; status = QUEUED; fence = 0
            :: else
            fi
        };
#endif

        /* complete: fenced, skipping what somebody holds */
        atomic {
            if
            :: mine == 0 || held
            :: mine != 0 && !held && MINE(mine) ->
                assert(fence == mine);      /* nobody records for a claim that has moved on */
                status = DONE; completions++;
                if
                :: losses > 0 -> losses--   /* committed, and the reply is lost: it is sent once more */
                :: mine = 0
                fi
            :: mine != 0 && !held && !MINE(mine) -> mine = 0
            fi;
            assert(completions <= 1)
        };

        /* forget_claims: when everything under it is settled */
        atomic {
            other = 1;
            do
            :: other < CLAIMS ->
                if
                :: owner[other] == me && other != mine && !(status == RUNNING && fence == other) -> owner[other] = 0
                :: else
                fi;
                other++
            :: else -> break
            od;
            other = 0
        };

        /* claim: the statement's snapshot sees the worker alive; its commit may come later than the mark */
        if
        :: mine == 0 && status == QUEUED && !dead[me] ->
            atomic {
                if
                :: status == QUEUED && !held && next_claim < CLAIMS ->
                    status = RUNNING; fence = next_claim; owner[next_claim] = me; mine = next_claim; next_claim++;
                    if
                    :: losses > 0 -> losses--; mine = 0     /* committed, and the reply is lost */
                    :: true
                    fi
                :: else
                fi
            }
        :: else
        fi
    od
}

/* mark_silent: no beat, or, by mistake, one that only was too slow */
#define MARK(life) \
    :: atomic { there[life] && !dead[life] && !beats[life] -> dead[life] = true } \
    :: atomic { there[life] && !dead[life] && beats[life] && mistakes > 0 -> mistakes--; dead[life] = true }

#define OF_A_DEAD(claim) (owner[claim] != 0 && dead[owner[claim]] && there[owner[claim]])
#define RUNS_UNDER(claim) (status == RUNNING && fence == claim)

/* reap: fenced, skipping */
#ifdef REAP_IN_ONE
#define REAP(claim) \
    :: atomic { OF_A_DEAD(claim) -> \
           if :: RUNS_UNDER(claim) && !held -> status = QUEUED; fence = 0 :: else fi; owner[claim] = 0 }
#else
#define REAP(claim) :: atomic { OF_A_DEAD(claim) && RUNS_UNDER(claim) && !held -> status = QUEUED; fence = 0 }
#endif

/* forget_dead_claims: those under whose id nothing runs any more */
#define FORGET(claim) :: atomic { OF_A_DEAD(claim) && !RUNS_UNDER(claim) -> owner[claim] = 0 }

/* a death is a DELETE: what commits a claim later is not found */
#ifdef DELETE_THE_DEAD
#define BURY(life) :: atomic { there[life] && dead[life] -> bury(life) }
#else
#define BURY(life)
#endif

inline bury(life) {
    k = 1;
    do
    :: k < CLAIMS ->
        if
        :: owner[k] == life ->
            if :: RUNS_UNDER(k) && !held -> status = QUEUED; fence = 0 :: else fi; owner[k] = 0
        :: else
        fi;
        k++
    :: else -> break
    od;
    k = 0; there[life] = false
}

/* Its steps in any order, as several reapers may come to take them. */
active proctype Reaper() {
    byte k;

    do
    MARK(1) MARK(2) MARK(3) MARK(4)
    REAP(1) REAP(2) REAP(3) REAP(4) REAP(5) REAP(6)
    FORGET(1) FORGET(2) FORGET(3) FORGET(4) FORGET(5) FORGET(6)
    BURY(1) BURY(2) BURY(3) BURY(4)
    od
}

active proctype Application() {
    if
    :: atomic { holds > 0 -> holds--; held = true }; held = false
    :: true
    fi
}

ltl known { [] (status == RUNNING -> owner[fence] != 0) }
ltl ends { <> [] (status == DONE) }
