"""Webhooks: signed messages of jobs that have ended, as Standard Webhooks has them (standardwebhooks.com).

A receiver checks one with ``verify(headers, body, secret)``, which needs nothing but this module.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, Final, TypeAlias
from urllib.parse import urlsplit

from pgjobs import codec
from pgjobs.codec import Json
from pgjobs.config import Duration, seconds
from pgjobs.errors import ConfigurationError, OptionError, WebhookError
from pgjobs.retry import Cancel, Retry, RetryLater

TASK: Final = "pgjobs.webhook"
"""The task that sends them; every worker has it."""

ENDS: Final = ("succeeded", "failed", "cancelled", "expired")
RETRY: Final = Retry(12, backoff=5, cap="1h")
TIMEOUT_S: Final = 15.0
"""How long a receiver may take to connect and to answer."""

TOLERANCE_S: Final = 300.0
"""How far a message's timestamp may be from now, so that an old one cannot be sent again."""

GONE: Final = 410


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
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise OptionError(f"webhook {self.url!r} is no URL to post to; give one that begins with https://")
        unknown = [self.on] if isinstance(self.on, str) else sorted(set(self.on) - set(ENDS))
        if unknown or not self.on:
            raise OptionError(f"a webhook's on is {self.on!r}; give a list of {', '.join(ENDS)}")

    def document(self) -> dict[str, Json]:
        """As the row keeps it."""
        more: dict[str, Json] = {"result": True} if self.result else {}
        return {"url": self.url, "on": list(self.on), **more}


Hooks: TypeAlias = str | Webhook | Sequence[str | Webhook]
"""A URL, for any end; a Webhook; or several."""


def hooks_of(given: Hooks) -> list[Json]:
    """What the option ``webhook`` makes of the row's options."""
    several: Iterable[str | Webhook] = [given] if isinstance(given, str | Webhook) else given
    return [(Webhook(hook) if isinstance(hook, str) else hook).document() for hook in several]


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
    """
    given = {name.lower(): value for name, value in headers.items()}
    try:
        message_id, stamp, signatures = (given[f"webhook-{name}"] for name in ("id", "timestamp", "signature"))
        timestamp = int(stamp)
    except (KeyError, ValueError):
        raise WebhookError("webhook-id, webhook-timestamp and webhook-signature are not all there") from None
    if abs(time.time() - timestamp) > seconds(tolerance, what="tolerance"):
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
    if not secret.startswith("whsec_"):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except binascii.Error:
        raise ConfigurationError("the webhook secret begins with whsec_, but no base64 follows") from None


# -- sending


def sender(secrets: Sequence[str]) -> Callable[..., int]:
    """Makes the function of the task that sends messages.

    Args:
        secrets: the first one is the current one; all of them sign.
    """

    def send(id: str, url: str, body: Json) -> int:
        """Posts a message; returns the status of the answer."""
        if not secrets:
            raise ConfigurationError(
                "a webhook is signed, and no secret is set; pass webhook_secret, or set PGJOBS_WEBHOOK_SECRET"
            )
        data, timestamp = codec.dumps(body).encode(), int(time.time())
        signatures = " ".join(sign(id, timestamp, data, secret) for secret in secrets)
        headers = {
            "content-type": "application/json",
            "user-agent": "pgjobs",
            "webhook-id": id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signatures,
        }
        return post(Webhook(url).url, data, headers)

    return send


def post(url: str, data: bytes, headers: dict[str, str]) -> int:
    """Posts to a URL that Webhook lets through; returns the status of the answer.

    Raises:
        WebhookError: it cannot be reached, or answers with an error; Cancel and RetryLater where it asks for that.
    """
    request = urllib.request.Request(url, data, headers)  # noqa: S310 - Webhook lets http and https through alone
    try:
        with _OPENER.open(request, timeout=TIMEOUT_S) as answer:
            status: int = answer.status
            return status
    except urllib.error.HTTPError as error:
        with error:
            _steer(error)
            raise WebhookError(f"{urlsplit(url).netloc} answered {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        raise WebhookError(f"{urlsplit(url).netloc} cannot be reached: {error}") from None


def _steer(error: urllib.error.HTTPError) -> None:
    """Does what the receiver asks for: never again, or later."""
    if error.code == GONE:
        raise Cancel("the receiver wants no more messages (410 Gone)")
    later = error.headers.get("retry-after", "")
    if error.code in (429, 503) and later.isdecimal():
        raise RetryLater(min(float(later), 86_400.0))


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect is a failure: it could lead to where nobody has meant a message to go."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> None:
        return None


_OPENER: Final = urllib.request.build_opener(_NoRedirects)
