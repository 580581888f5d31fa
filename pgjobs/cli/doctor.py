"""``pgjobs doctor``: what is wrong with a database, and how to mend it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from pgjobs.cli import codes, options

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pgjobs.doctor import Finding

_COLOURS = {"critical": "bold red", "warning": "yellow", "skipped": "dim"}
_MARKS = {"critical": "✗", "warning": "!", "skipped": "?"}


@click.command()
@click.option(
    "--long",
    "long_",
    default="5m",
    show_default=True,
    metavar="DURATION",
    help="For how long a transaction may be open.",
)
@options.as_json
@options.database
def command(long_: str, as_json: bool, app: str | None, url: str | None, schema: str | None) -> None:
    """Find what is wrong with the database, why it matters, and how to mend it.

    It changes nothing. A check for which the role may not read enough says so. Exit with 1 where something is wrong.
    """
    from pgjobs.config import seconds
    from pgjobs.doctor import CHECKS, Limits, examine

    database = options.database_of(app, url, schema)
    findings = examine(database, Limits(long_s=seconds(long_, what="--long")))
    wrong = [finding for finding in findings if finding.is_wrong]
    if as_json:
        options.write_json({"healthy": not wrong, "findings": findings})
    else:
        out = options.console()
        for finding in findings:
            out.print(_picture(finding), soft_wrap=True)
        out.print(_summary(len(CHECKS), len(wrong), len(findings) - len(wrong)))
    if wrong:
        sys.exit(codes.FAILURE)


def _picture(finding: Finding) -> RenderableType:
    from rich.text import Text

    from pgjobs.wording import one_line

    colour = _COLOURS[finding.severity]
    return Text.assemble(
        (f"{_MARKS[finding.severity]} {finding.severity}", colour),
        ("  " + one_line(finding.what), "bold"),
        f"\n    why   {one_line(finding.why)}\n    mend  ",
        (one_line(finding.remedy), "cyan"),
        "\n",
    )


def _summary(checks: int, wrong: int, skipped: int) -> RenderableType:
    from rich.text import Text

    from pgjobs.wording import plural

    unseen = f", of which {skipped} could not look" if skipped else ""
    if not wrong:
        return Text(f"✓ nothing wrong in {checks} checks{unseen}", "yellow" if skipped else "green")
    return Text(f"{plural(wrong, 'finding')} in {checks} checks{unseen}", "bold")
