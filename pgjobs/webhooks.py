"""Webhooks: signed messages of jobs that have ended, as Standard Webhooks has them (standardwebhooks.com).

A receiver checks one with ``verify(headers, body, secret)``, which needs nothing but this module.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final, TypeAlias, cast
from urllib.parse import urlsplit

from pgjobs import wording
from pgjobs.arguments import codec
from pgjobs.arguments.codec import Json
from pgjobs.config import Duration, seconds, switch
from pgjobs.errors import ConfigurationError, OptionError, WebhookError
from pgjobs.terms.retry import Cancel, Retry

TASK: Final = "pgjobs.webhook"
"""The task that sends them; every worker has it."""

UNSIGNED: Final = "no secret is set; pass webhook_secret, or set PGJOBS_WEBHOOK_SECRET"

ENDS: Final = ("succeeded", "failed", "cancelled", "expired")
RETRY: Final = Retry(12, backoff=5, cap="1h")

TOLERANCE_S: Final = 300.0
"""How far a message's timestamp may be from now, so that an old one cannot be sent again."""

_LOGIN: Final = re.compile(r"\w+://[^/?#]*@")
_HOST: Final = re.compile(r"[a-z0-9._:*-]+")
_LATEST: Final = 2**53
"""Larger timestamps, which a sender may have made up, fit no float."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where a message goes when a job has ended.

    Args:
        url: http or https.
        on: which ends are told of: succeeded, failed, cancelled, expired; all by default.
        result: send the job's result along.

    Raises:
        OptionError: a URL or an end that cannot be meant.
    """

    url: str
    on: Sequence[str] = ENDS
    result: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.url, str) and _LOGIN.match(self.url):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise OptionError(
                "a webhook's URL has a user or a password, which would stand in the table and in messages; leave them "
                "out, and have the receiver check the signature"
            )
        if not _can_post_to(self.url):
            raise OptionError(
                f"webhook {wording.given(self.url)} is no URL to post to; give one that begins with https://, in ASCII "
                "(%C5%BC for ż, xn--… for a host)"
            )
        if not isinstance(self.on, list | tuple) or not self.on or any(end not in ENDS for end in self.on):
            raise OptionError(f"a webhook's on is {wording.given(self.on)}; give a list of {', '.join(ENDS)}")
        switch(self.result, "a webhook's result")

    def document(self) -> dict[str, Json]:
        """As the row keeps it."""
        more: dict[str, Json] = {"result": True} if self.result else {}
        return {"url": self.url, "on": list(self.on), **more}


Hooks: TypeAlias = str | Webhook | Sequence[str | Webhook]
"""A URL, for any end; a Webhook; or several."""


def hooks_of(given: Hooks) -> list[Json]:
    """What the option ``webhook`` makes of the row's options.

    Raises:
        OptionError: it is none of that.
    """
    several: object = [given] if isinstance(given, str | Webhook) else given
    hooks = cast("Sequence[object]", several) if isinstance(several, list | tuple) else [None]
    made = [Webhook(hook) if isinstance(hook, str) else hook for hook in hooks]
    if not all(isinstance(hook, Webhook) for hook in made):
        raise OptionError(f"webhook is {wording.given(given)}; give a URL, Webhook(…), or a list of them")
    return [cast("Webhook", hook).document() for hook in made]


def _can_post_to(url: object) -> bool:
    """Whether a request to it could be sent; what cannot would only be found when the job has ended, twelve times."""
    if not isinstance(url, str) or not all("!" <= character <= "~" for character in url):
        return False
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna")
        return parts.scheme in ("http", "https") and bool(host) and parts.port != 0
    except ValueError:  # brackets that hold no address, a port that is none, a part of a name that is too long
        return False


# -- signatures


def sign(message_id: str, timestamp: int, body: bytes, secret: str) -> str:
    """The signature of a message, under one secret."""
    content = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(_key(secret), content, hashlib.sha256).digest()).decode()


def verify(
    headers: Mapping[str, str], body: bytes, secret: str | Sequence[str], tolerance: Duration = TOLERANCE_S
) -> Any:
    """Returns what a message says, if it comes from whoever has the secret, and is new.

    The same message may come twice: its ``webhook-id`` is the same then.

    Args:
        headers: of the request, in any case.
        body: as it came.
        secret: or several, while one replaces the other.
        tolerance: how old, or early, it may be.

    Raises:
        WebhookError: it is not signed, signed with another secret, changed, or too old.
        ConfigurationError: the secret is empty, so that anybody could have signed, or none.
    """
    given = {name.lower(): value for name, value in headers.items()}
    try:
        message_id, stamp, signatures = (given[f"webhook-{name}"] for name in ("id", "timestamp", "signature"))
        timestamp = int(stamp)
    except (KeyError, ValueError):
        raise WebhookError("webhook-id, webhook-timestamp and webhook-signature are not all there") from None
    if timestamp > _LATEST or abs(time.time() - timestamp) > seconds(tolerance, what="tolerance"):
        raise WebhookError(f"the message is of {timestamp}, too far from now; it may have been sent before")
    secrets = [secret] if isinstance(secret, str) else secret
    expected = [sign(message_id, timestamp, body, each) for each in secrets]
    if not any(
        hmac.compare_digest(known.encode(), found.encode()) for known in expected for found in signatures.split()
    ):
        raise WebhookError("the signature is not that of this message under this secret")
    return codec.loads(body)


def _key(secret: str) -> bytes:
    """The key that a secret stands for: ``whsec_`` and base64, or any other text as it is."""
    if not isinstance(secret, str) or not codec.is_encodable(secret):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigurationError(f"a webhook secret is a {type(secret).__name__}, and no text that can be a key")
    try:
        encoded = secret.startswith("whsec_")
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True) if encoded else secret.encode()
    except ValueError:
        raise ConfigurationError("the webhook secret begins with whsec_, but no base64 follows") from None
    if not key:
        raise ConfigurationError("the webhook secret is empty, so anybody could sign with it; is its variable set?")
    return key


def secrets_of(given: object) -> list[str]:
    """The secrets that ``webhook_secret`` names: a text, with commas between several, or a list; none, if it is empty.

    Raises:
        ConfigurationError: one of them cannot be a key.
    """
    several: Any = given.split(",") if isinstance(given, str) else given
    if not isinstance(several, list | tuple):
        raise ConfigurationError(f"webhook_secret is a {type(several).__name__}; give a text, or a list of them")
    secrets: list[str] = [each for each in cast("Sequence[str]", several) if each != ""]
    for secret in secrets:
        _key(secret)
    return secrets


def hosts_of(given: object) -> list[str] | None:
    """The hosts that ``webhook_hosts`` names: a text, with commas between several, or a list; None for any.

    Raises:
        ConfigurationError: it is none of that.
    """
    several: Any = given.split(",") if isinstance(given, str) else given
    if several is None or several == [""]:
        return None
    if not isinstance(several, list | tuple) or not all(isinstance(each, str) for each in cast("Any", several)):
        raise ConfigurationError(f"webhook_hosts is a {type(given).__name__}; give names such as *.example.com")
    hosts = [each.strip().lower() for each in cast("Sequence[str]", several)]
    if (wrong := next((host for host in hosts if not _HOST.fullmatch(host)), None)) is not None:
        raise ConfigurationError(
            f"webhook_hosts has {wording.given(wrong)}; give names without scheme and port, as *.example.com"
        )
    return hosts


# -- sending


def sender(secrets: Sequence[str], hosts: Sequence[str] | None = None) -> Callable[..., int]:
    """Makes the function of the task that sends messages.

    Args:
        secrets: the first one is the current one; all of them sign.
        hosts: it posts to no others, where that is given; * stands for any characters.
    """

    def send(id: str, url: str, body: Json) -> int:
        """Posts a message; returns the status of the answer."""
        if not secrets:
            raise ConfigurationError(f"a webhook is signed, and {UNSIGNED}")
        host = (urlsplit(Webhook(url).url).hostname or "").lower()
        if hosts is not None and not any(fnmatchcase(host, each) for each in hosts):
            raise Cancel(f"{wording.short(host)} is none of webhook_hosts")
        data, timestamp = codec.dumps(body).encode(), int(time.time())
        signatures = " ".join(sign(id, timestamp, data, secret) for secret in secrets)
        headers = {
            "content-type": "application/json",
            "user-agent": "pgjobs",
            "webhook-id": id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signatures,
        }
        from pgjobs.posting import post  # the modules of HTTP are 3 MB, which no supervisor needs

        return post(url, data, headers)

    return send
