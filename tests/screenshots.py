"""Draws docs/img/info.svg and top.svg, from a queue that is at work on an embedded PostgreSQL: ``make screenshots``."""

from __future__ import annotations

import asyncio
import io
import sys
from pathlib import Path
from typing import Any, Final

import psycopg
from rich.console import Console

from pgjobs import PgJobs
from pgjobs.cli.picture import picture
from pgjobs.insight.overview import overview
from pgjobs.migrations import migrate
from pgjobs.top.screen import PALETTE, Top
from tests.processes import ROOT
from tests.support import suite_server

IMAGES: Final = ROOT / "docs" / "img"
WIDTH: Final = 118
LARGEST: Final = 150_000

SEED: Final = """
INSERT INTO pgjobs.workers (id, supervisor_id, name, host, pid, queues, slots, started_at, seen_at)
SELECT gen_random_uuid(), gen_random_uuid(), name, 'ada', 1, queues::text[], slots, now() - up::interval,
       clock_timestamp() - silent::interval
  FROM (VALUES ('ada:4711.0', '{mail,default}', 16, '5 hours', '1 s'),
               ('ada:4711.1', '{mail,default}', 16, '5 hours', '1 s'),
               ('bob:902.0', '{imports,webhooks}', 4, '2 days', '2 s'), ('eve:77.0', '{*}', 8, '20 min', '11 s'))
       AS worker (name, queues, slots, up, silent);
INSERT INTO pgjobs.jobs (task, queue, args, created_at)
SELECT 'shop.mail.welcome', 'mail', '{"user_id": 42}'::jsonb, now() - interval '90 s' FROM generate_series(1, 2800)
UNION ALL SELECT 'shop.imports.customers', 'imports', '{"file": "ann.csv"}', now() - interval '14 min'
  FROM generate_series(1, 1900)
UNION ALL SELECT 'shop.hooks.deliver', 'webhooks', '{"order": 7}', now() - interval '4 s' FROM generate_series(1, 350)
UNION ALL SELECT 'shop.reports.monthly', 'reports', '{"month": "2026-10"}', now() - interval '3 hours'
  FROM generate_series(1, 640);
INSERT INTO pgjobs.jobs (id, task, queue, status, position, attempt, started_at, finished_at, claim_id)
SELECT pgjobs.id_at(now() - n * interval '10 ms'), 'shop.hooks.deliver', 'webhooks', 'succeeded', NULL, 1, now(), now(),
       gen_random_uuid()
  FROM generate_series(1, 3000) AS n;
INSERT INTO pgjobs.jobs (task, queue, status, position, due_at)
SELECT 'shop.mail.welcome', 'mail', 'scheduled', NULL::bigint, now() + n * interval '1 min'
  FROM generate_series(1, 800) AS n
UNION ALL SELECT 'shop.imports.customers', 'imports', 'scheduled', NULL, now() + interval '1 hour'
  FROM generate_series(1, 300)
UNION ALL SELECT 'shop.backup', 'default', 'scheduled', NULL, now() + interval '1 hour' FROM generate_series(1, 24);
INSERT INTO pgjobs.rollups (minute, queue, task, status, bucket, jobs, seconds)
SELECT date_trunc('minute', now()) - n * interval '1 min', queue, task, status, 9, jobs, jobs * 0.2
  FROM generate_series(0, 300) AS n,
       (VALUES ('mail', 'shop.mail.welcome', 'succeeded', 1290), ('mail', 'shop.mail.welcome', 'failed', 1),
               ('mail', 'shop.mail.welcome', 'retried', 9), ('imports', 'shop.imports.customers', 'succeeded', 260),
               ('imports', 'shop.imports.customers', 'failed', 3),
               ('webhooks', 'shop.hooks.deliver', 'succeeded', 1700),
               ('default', 'shop.backup', 'succeeded', 30)) AS handled (queue, task, status, jobs);
UPDATE pgjobs.jobs SET created_at = now() - interval '30 s' WHERE status = 'succeeded';
"""


def hold_and_run(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    """Has workers hold some of the jobs, and puts others on hold."""
    for name, queue, count in (("ada:4711.0", "mail", 16), ("ada:4711.1", "mail", 14), ("bob:902.0", "imports", 4)):
        conn.execute(
            """
            WITH held AS (
                SELECT array_agg(id) AS ids
                  FROM (SELECT id
                          FROM pgjobs.jobs
                         WHERE position IS NOT NULL AND queue = %s
                         ORDER BY position
                         LIMIT %s) AS few
            ), claim AS (
                INSERT INTO pgjobs.claims (id, worker_id, job_ids, positions)
                SELECT gen_random_uuid(), worker.id, held.ids, '{}'
                  FROM held, pgjobs.workers AS worker
                 WHERE worker.name = %s
                RETURNING id
            )
            UPDATE pgjobs.jobs AS job
               SET status = 'running', position = NULL, attempt = 1, started_at = now(), claim_id = claim.id
              FROM claim, held
             WHERE job.id = ANY (held.ids)
            """,
            [queue, count, name],
        )
    ids = [
        row[0]
        for row in conn.execute("SELECT id FROM pgjobs.jobs WHERE queue = 'imports' AND position IS NOT NULL LIMIT 250")
    ]
    jobs.hold(ids, "the file is checked")
    jobs.pause("reports", reason="month's end")
    conn.execute(
        "INSERT INTO pgjobs.marks (at, text, author, host) VALUES (now() - interval '12 min', 'v1.2.3', 'ann', 'ada')"
    )


def draw_info(jobs: PgJobs) -> str:
    """The picture of ``pgjobs info``."""
    out = Console(
        record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor", highlight=False
    )
    out.print(picture(jobs.database.look(overview())))
    return out.export_svg(title="pgjobs info", theme=PALETTE)


async def draw_top(jobs: PgJobs) -> str:
    """The picture of ``pgjobs top``."""
    app = Top(jobs, 60.0, "queues")
    async with app.run_test(size=(WIDTH, 18)) as pilot:
        await asyncio.sleep(1.0)
        await pilot.press("down", "down")
        await pilot.pause(0.2)
        return app.export_screenshot(title="pgjobs top")


def write(path: Path, svg: str) -> None:
    """Writes a picture, if it is small enough."""
    data = "\n".join(line.rstrip() for line in svg.splitlines()) + "\n"
    if len(data) > LARGEST:
        sys.exit(f"{path.name} has {len(data):,} bytes; {LARGEST:,} are the most")
    path.write_text(data)


def main() -> None:
    """Draws both."""
    with suite_server() as url:
        migrate(url)
        jobs = PgJobs(url)
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute(SEED)
            hold_and_run(jobs, conn)
            conn.execute("ANALYZE")
        write(IMAGES / "info.svg", draw_info(jobs))
        write(IMAGES / "top.svg", asyncio.run(draw_top(jobs)))
        jobs.close()


if __name__ == "__main__":
    main()
