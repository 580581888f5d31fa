"""Arguments and results that only those with a key can read: sealed as a whole before they are stored."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Final

from pgjobs.arguments import codec
from pgjobs.arguments.codec import Json
from pgjobs.config import MAX_DOCUMENT_BYTES
from pgjobs.errors import ConfigurationError, DecryptionError, EncodingError

if TYPE_CHECKING:
    from cryptography.fernet import Fernet, MultiFernet

SEALED: Final = "$encrypted"
"""The one key of the JSON object that stands in a row for a sealed document; its value is the token."""

_BEGINNING: Final = f'{{"{SEALED}":'
_INSTALL: Final = "encryption needs the extra crypto; pip install 'pgjobs-queue[crypto]'"


class Cipher:
    """Seals documents with the first of its keys, and opens what any of them has sealed.

    Keys and library are looked for when the first document comes: who only imports a task needs neither.

    Args:
        keys: Fernet keys, in a list or with commas between; None for those of PGJOBS_KEYS.
    """

    def __init__(self, keys: Sequence[str] | None = None) -> None:
        self._given = keys.split(",") if isinstance(keys, str) else keys

    def dumps(self, value: Json, *, what: str = "value", limit: int | None = MAX_DOCUMENT_BYTES) -> str:
        """Returns the value as the JSON text of its sealed form; the limits hold for the open form and the sealed one.

        Raises:
            EncodingError: see ``codec.dumps``; it does not say where in the value, whose keys may be secret too.
            ConfigurationError: there is no key, or no library.
        """
        try:
            text = codec.dumps(value, what=what, limit=limit)
        except EncodingError as error:
            if error.path == "$":
                raise
            raise EncodingError(
                f"{what} cannot be stored as JSON; the task encrypts them, so what and where is not said"
            ) from None
        return codec.dumps({SEALED: self._all.encrypt(text.encode()).decode()}, what=f"encrypted {what}", limit=limit)

    def loads(self, document: Json) -> Json:
        """Opens a sealed document; one that is not sealed is returned as it is.

        Raises:
            DecryptionError: none of the keys opens it.
            ConfigurationError: there is no key, or no library.
        """
        token = sealed(document)
        return document if token is None else codec.loads(self._open(token))

    def seal(self, text: str) -> str:
        """Seals a text: the JSON text of its sealed form stands in its place.

        Raises:
            ConfigurationError: there is no key, or no library.
        """
        return codec.dumps({SEALED: self._all.encrypt(text.encode()).decode()}, limit=None)

    def unseal(self, text: str) -> str:
        """Opens a text that ``seal`` has sealed; any other one is returned as it is.

        Raises:
            DecryptionError: none of the keys opens it.
            ConfigurationError: there is no key, or no library.
        """
        token = sealed_text(text)
        return text if token is None else self._open(token).decode()

    def check(self) -> None:
        """Makes sure that results can be sealed.

        Raises:
            ConfigurationError: there is no key, or no library.
        """
        _ = self._all

    def rotate(self, token: str) -> str | None:
        """Seals anew, with the first key, what another one has sealed; None where the first has.

        Raises:
            DecryptionError: none of the keys opens it.
            ConfigurationError: there is no key, or no library.
        """
        newest = self._each[0]
        from cryptography.fernet import InvalidToken

        try:
            newest.decrypt(token)
        except (InvalidToken, ValueError):
            return newest.encrypt(self._open(token)).decode()
        return None

    def _open(self, token: str) -> bytes:
        fernet = self._all
        from cryptography.fernet import InvalidToken

        try:
            return fernet.decrypt(token)
        except (InvalidToken, ValueError):  # the latter: not ASCII, and so no token
            raise DecryptionError(
                "no key fits what is stored encrypted; add the key it was written with to PGJOBS_KEYS or PgJobs(keys=…)"
            ) from None

    @cached_property
    def _all(self) -> MultiFernet:
        each = self._each
        from cryptography.fernet import MultiFernet

        return MultiFernet(each)

    @cached_property
    def _each(self) -> list[Fernet]:
        try:
            from cryptography.fernet import Fernet
        except ImportError:
            raise ConfigurationError(_INSTALL) from None
        keys = self._given if self._given is not None else os.environ.get("PGJOBS_KEYS", "").split(",")
        made: list[Fernet] = []
        for number, key in enumerate([key.strip() for key in keys if key.strip()], start=1):
            try:
                made.append(Fernet(key))
            except ValueError:
                raise ConfigurationError(
                    f"encryption key {number} is no Fernet key; `pgjobs keys generate` prints one"
                ) from None
        if not made:
            raise ConfigurationError(
                "there is no key to encrypt with; `pgjobs keys generate` prints one, for PGJOBS_KEYS or PgJobs(keys=…)"
            )
        return made


def generate() -> str:
    """Makes a new key.

    Raises:
        ConfigurationError: the library is not installed.
    """
    try:
        from cryptography.fernet import Fernet
    except ImportError:
        raise ConfigurationError(_INSTALL) from None
    return Fernet.generate_key().decode()


def sealed(document: Json) -> str | None:
    """The token of a sealed document; None where it is not sealed."""
    if not isinstance(document, dict) or len(document) != 1:  # pyright: ignore[reportUnknownArgumentType]
        return None
    token: Json = document.get(SEALED)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return token if isinstance(token, str) else None


def sealed_text(text: str) -> str | None:
    """The token of a sealed text; None where it is not sealed."""
    return sealed(codec.loads(text)) if text.startswith(_BEGINNING) else None
