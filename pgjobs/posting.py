"""Posts a message by HTTP, and understands the answer."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from typing import IO, Any, Final
from urllib.parse import urlsplit

from pgjobs.errors import WebhookError
from pgjobs.terms.retry import Cancel, RetryLater

TIMEOUT_S: Final = 15.0
"""How long a receiver may take to connect and to answer."""

GONE: Final = 410


def post(url: str, data: bytes, headers: dict[str, str]) -> int:
    """Posts data; returns the status of the answer, which is one of success.

    Raises:
        WebhookError: nobody answers, or not with success.
        Cancel: the receiver wants no more messages.
        RetryLater: it wants this one later.
    """
    request = urllib.request.Request(url, data, headers)  # noqa: S310 - Webhook lets http and https through alone
    try:
        with _OPENER.open(request, timeout=TIMEOUT_S) as answer:
            status: int = answer.status
            return status
    except urllib.error.HTTPError as error:
        with error:
            _steer(error, urlsplit(url).netloc)
            raise WebhookError(f"{urlsplit(url).netloc} answered {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        raise WebhookError(f"{urlsplit(url).netloc} cannot be reached: {error}") from None


def _steer(error: urllib.error.HTTPError, who: str) -> None:
    """Does what the receiver asks for: never again, or later."""
    if error.code == GONE:
        raise Cancel("the receiver wants no more messages (410 Gone)")
    later = error.headers.get("retry-after", "")
    if error.code in (429, 503) and later.isdecimal():
        raise RetryLater(
            min(float(later), 86_400.0), f"{who} answered {error.code}, and asks for a rest of {later:.20} s"
        )


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect is a failure: it could lead to where nobody has meant a message to go."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> None:
        return None


_OPENER: Final = urllib.request.build_opener(_NoRedirects)
