"""Where alerts go: a webhook, Slack, a mailbox, a command. ``deliver`` returns when the other side has confirmed.

No URL is shown in full: those of Slack and of mail servers hold secrets.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import smtplib
import socket
import ssl
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from email.message import EmailMessage
from typing import Final, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

from pgjobs import webhooks
from pgjobs.arguments import codec
from pgjobs.arguments.codec import Json
from pgjobs.errors import AlertError, OptionError
from pgjobs.posting import post

TIMEOUT_S: Final = 15.0
"""How long a target may take."""

_WORDS: Final = {"firing": "ALERT", "reminder": "STILL", "recovered": "OK", "test": "TEST"}


class Target(Protocol):
    """Where a message goes. key names it in the database: it must stay the same, and show no secret."""

    @property
    def key(self) -> str:
        """What the target is known by."""
        ...

    def deliver(self, message_id: str, document: Mapping[str, Json], secrets: Sequence[str], /) -> None:
        """Sends a message; raises where it has not arrived. The same message may be sent twice, under one id."""
        ...


def line(document: Mapping[str, Json]) -> str:
    """A message in one line, as people are told it."""
    kind = str(document["type"]).removeprefix("alert.")
    data = document["data"]
    return f"{_WORDS.get(kind, kind.upper())} {data['alert']}: {data['says']}"


@dataclass(frozen=True)
class ToWebhook:
    """A POST of the message as JSON, signed as the webhooks of jobs are.

    Raises:
        OptionError: no URL to post to.
    """

    url: str = field(repr=False)

    def __post_init__(self) -> None:
        webhooks.Webhook(self.url)

    @property
    def key(self) -> str:
        return _key("webhook", self.url)

    def deliver(self, message_id: str, document: Mapping[str, Json], secrets: Sequence[str], /) -> None:
        webhooks.sender(secrets)(message_id, self.url, dict(document))


@dataclass(frozen=True)
class ToSlack:
    """A message to an incoming webhook of Slack, or of whoever takes the same JSON: Mattermost, Rocket.Chat.

    Raises:
        OptionError: no URL to post to.
    """

    url: str = field(repr=False)

    def __post_init__(self) -> None:
        webhooks.Webhook(self.url)

    @property
    def key(self) -> str:
        return _key("slack", self.url)

    def deliver(self, message_id: str, document: Mapping[str, Json], secrets: Sequence[str], /) -> None:
        body = codec.dumps({"text": line(document)}).encode()
        post(self.url, body, {"content-type": "application/json", "user-agent": "pgjobs"})


@dataclass(frozen=True)
class ToMail:
    """A mail: ``smtps://user:password@host/?to=ops@example.com``, or ``smtp://…``.

    TLS is there from the start with ``smtps``, and by STARTTLS where it is offered with ``smtp``; the certificate is
    checked, against those that the system trusts or SSL_CERT_FILE. ``to`` may name several, with commas
    between; ``from`` is the user, or pgjobs at this host, by default. A password is sent over TLS alone. What is
    special in it is percent-encoded.

    Raises:
        OptionError: no such URL.
    """

    url: str = field(repr=False)

    def __post_init__(self) -> None:
        parts, query = urlsplit(self.url), self._query
        try:
            known = parts.scheme in ("smtp", "smtps") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            known = False
        if not known:  # the URL itself is not quoted: it may hold a password
            raise OptionError("a mail's URL cannot be read; write smtps://user:password@host/?to=ops@example.com")
        addresses = [*self._to, *query.get("from", ())]
        if not self._to or any("@" not in each or set(each) & set("\r\n") for each in addresses):
            raise OptionError("a mail's URL names nobody to write to; end it with ?to=ops@example.com")
        if unknown := query.keys() - {"to", "from"}:
            raise OptionError(f"a mail's URL has {min(unknown)}=; there are to= and from=")

    @property
    def key(self) -> str:
        return f"mail to {', '.join(self._to)} by {urlsplit(self.url).hostname}"

    @property
    def _query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.url).query.replace("+", "%2B"))

    @property
    def _to(self) -> list[str]:
        return [each.strip() for given in self._query.get("to", ()) for each in given.split(",") if each.strip()]

    def deliver(self, message_id: str, document: Mapping[str, Json], secrets: Sequence[str], /) -> None:
        parts = urlsplit(self.url)
        host, user, password = parts.hostname or "", unquote(parts.username or ""), unquote(parts.password or "")
        try:
            with self._connected(host, parts.port) as server:
                if parts.scheme == "smtp":
                    _encrypt(server, needed=bool(password))
                if user:
                    server.login(user, password)
                server.send_message(self._mail(message_id, document, user))
        except (OSError, smtplib.SMTPException) as error:
            said = str(error).replace(password, "…") if password else str(error)
            raise AlertError(f"{host} has not taken the mail: {type(error).__name__}: {said}") from None

    def _connected(self, host: str, port: int | None) -> smtplib.SMTP:
        if urlsplit(self.url).scheme == "smtps":
            return smtplib.SMTP_SSL(host, port or 465, timeout=TIMEOUT_S, context=ssl.create_default_context())
        return smtplib.SMTP(host, port or 587, timeout=TIMEOUT_S)

    def _mail(self, message_id: str, document: Mapping[str, Json], user: str) -> EmailMessage:
        mail = EmailMessage()
        own = user if "@" in user else f"pgjobs@{socket.gethostname()}"
        mail["From"] = self._query.get("from", [own])[0]
        mail["To"] = ", ".join(self._to)
        mail["Subject"] = " ".join(line(document).split())
        mail["Date"] = datetime.fromisoformat(document["timestamp"])
        mail["Message-ID"] = f"<{message_id}@pgjobs>"
        data = document["data"]
        mail.set_content(f"{data['says']}\n\nsince {data['since']}\n")
        return mail


@dataclass(frozen=True, init=False)
class ToCommand:
    """A command: ``ToCommand("notify-send", "pgjobs")``.

    It has the message as JSON on standard input, and in PGJOBS_ALERT, PGJOBS_ALERT_TYPE and PGJOBS_ALERT_SAYS; no shell
    reads it. It must end by itself, with exit code 0, within 15 seconds.

    Raises:
        OptionError: no command.
    """

    argv: tuple[str, ...]

    def __init__(self, *argv: str) -> None:
        if not argv or not all(isinstance(each, str) for each in argv):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise OptionError(f"an alert's command is {argv!r}; give a program and its arguments, each a text")
        object.__setattr__(self, "argv", argv)

    @property
    def key(self) -> str:
        return _key(f"command {os.path.basename(self.argv[0])}", "\0".join(self.argv))

    def deliver(self, message_id: str, document: Mapping[str, Json], secrets: Sequence[str], /) -> None:
        text = json.dumps({"id": message_id, **document}, ensure_ascii=False)
        told = {
            "PGJOBS_ALERT": str(document["data"]["alert"]),
            "PGJOBS_ALERT_TYPE": str(document["type"]),
            "PGJOBS_ALERT_SAYS": line(document),
        }
        program = self.argv[0]
        try:
            code, said = _run(self.argv, text.encode(), {**os.environ, **told})
        except subprocess.TimeoutExpired:
            raise AlertError(f"the command {program} had not ended after {TIMEOUT_S:g} s") from None
        except OSError as error:
            raise AlertError(f"the command {program} cannot be run: {error.strerror or error}") from None
        if code:
            last = said.decode(errors="replace").strip().rpartition("\n")[2][:200]
            raise AlertError(f"the command {program} ended with {code}" + (f": {last}" if last else ""))


def _run(argv: Sequence[str], text: bytes, environment: Mapping[str, str]) -> tuple[int, bytes]:
    """Runs a command; returns its exit code and what it has said on standard error.

    Raises:
        OSError: it cannot be run.
        subprocess.TimeoutExpired: it took too long, and is killed with all that it has started.
    """
    with subprocess.Popen(
        argv, env=environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            _, said = process.communicate(text, TIMEOUT_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    return process.returncode, said


def _encrypt(server: smtplib.SMTP, *, needed: bool) -> None:
    server.ehlo()
    if server.has_extn("starttls"):
        server.starttls(context=ssl.create_default_context())
    elif needed:
        raise smtplib.SMTPNotSupportedError(
            "it offers no STARTTLS, and a password is sent over TLS alone; use smtps://"
        )


def _key(kind: str, secret: str) -> str:
    """Tells targets of a kind apart without showing what is secret in them."""
    host = urlsplit(secret).hostname if "://" in secret else ""
    return " ".join(filter(None, (kind, host, hashlib.sha256(secret.encode()).hexdigest()[:8])))
