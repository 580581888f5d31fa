"""Webhooks: signed messages of jobs that have ended, as Standard Webhooks has them (standardwebhooks.com).

A receiver checks one with ``verify(headers, body, secret)``, which needs nothing but this module.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, cast
from urllib.parse import urlsplit

from pgjobs import wording
from pgjobs.arguments import codec
from pgjobs.arguments.codec import Json
from pgjobs.config import Duration, seconds
from pgjobs.errors import ConfigurationError, OptionError, WebhookError
from pgjobs.terms.retry import Retry

TASK: Final = "pgjobs.webhook"
"""The task that sends them; every worker has it."""

UNSIGNED: Final = "no secret is set; pass webhook_secret, or set PGJOBS_WEBHOOK_SECRET"

ENDS: Final = ("succeeded", "failed", "cancelled", "expired")
RETRY: Final = Retry(12, backoff=5, cap="1h")

TOLERANCE_S: Final = 300.0
"""How far a message's timestamp may be from now, so that an old one cannot be sent again."""


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
        if not _can_post_to(self.url):
            raise OptionError(
                f"webhook {wording.given(self.url)} is no URL to post to; give one that begins with https://"
            )
        if not isinstance(self.on, list | tuple) or not self.on or any(end not in ENDS for end in self.on):
            raise OptionError(f"a webhook's on is {wording.given(self.on)}; give a list of {', '.join(ENDS)}")

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
    try:
        parts = urlsplit(url) if isinstance(url, str) else None
    except ValueError:  # brackets that hold no address
        return False
    return parts is not None and parts.scheme in ("http", "https") and bool(parts.hostname)


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
            raise ConfigurationError(f"a webhook is signed, and {UNSIGNED}")
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

        return post(Webhook(url).url, data, headers)

    return send
