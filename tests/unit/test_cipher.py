"""Sealed documents: which keys open them, what is said where none does, and what the limits hold for."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

from pgjobs import ArgumentsError, ConfigurationError, DecryptionError, EncodingError
from pgjobs.arguments import codec
from pgjobs.arguments.cipher import SEALED, Cipher, generate, sealed
from pgjobs.arguments.signature import Signature
from pgjobs.config import MAX_DOCUMENT_BYTES

OLD, NEW, OTHER = generate(), generate(), generate()
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text(st.characters(codec="utf-8", exclude_characters="\0")),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.sampled_from("abc$.*"), max_size=9), inner, max_size=3)
    ),
    max_leaves=8,
)


def stored(cipher: Cipher, value: Any) -> Any:
    """What a row would hold of it."""
    return codec.loads(cipher.dumps(value))


@given(value=JSON)
def test_what_was_sealed_comes_back(value: Any) -> None:
    cipher = Cipher([OLD])
    assert cipher.loads(stored(cipher, value)) == value


def test_row_holds_a_token_and_nothing_else() -> None:
    document = stored(Cipher([OLD]), {"password": "hunter2"})
    assert list(document) == [SEALED]
    assert "hunter2" not in str(document)
    assert Fernet(OLD).decrypt(document[SEALED]) == b'{"password":"hunter2"}'


def test_first_key_encrypts_and_each_decrypts() -> None:
    old = stored(Cipher([OLD]), 1)
    both = Cipher([NEW, OLD])
    assert both.loads(old) == 1
    assert Cipher([NEW]).loads(stored(both, 2)) == 2


def test_rotation_seals_anew_what_another_key_has_sealed_and_nothing_else() -> None:
    both = Cipher([NEW, OLD])
    old: str = stored(Cipher([OLD]), 1)[SEALED]
    new = both.rotate(old)
    assert new is not None
    assert Cipher([NEW]).loads({SEALED: new}) == 1
    assert both.rotate(new) is None


@pytest.mark.parametrize("token", ["", "x", "é", "gAAAA", "OTHER"])
def test_token_that_no_key_opens_is_an_error_of_its_own_without_the_token(token: str) -> None:
    if token == "OTHER":
        token = Fernet(OTHER).encrypt(b"1").decode()  # made here, since the test's name must be the same everywhere
    for refuse in (lambda: Cipher([NEW, OLD]).loads({SEALED: token}), lambda: Cipher([NEW]).rotate(token)):
        with pytest.raises(DecryptionError, match=r"^no key fits"):
            refuse()


@pytest.mark.parametrize("document", [None, 1, "x", [SEALED], {}, {SEALED: 1}, {SEALED: "x", "more": 1}, {"a": 1}])
def test_document_that_is_not_sealed_is_left_as_it_is(document: Any) -> None:
    assert sealed(document) is None
    assert Cipher([]).loads(document) == document


def test_keys_come_from_the_environment_when_they_are_first_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    cipher = Cipher()
    monkeypatch.setenv("PGJOBS_KEYS", f" {NEW} , {OLD},")
    assert cipher.loads(stored(Cipher([OLD]), 1)) == 1
    assert Cipher([NEW]).loads(stored(cipher, 2)) == 2


@pytest.mark.parametrize("keys", [None, [], [""]])
def test_no_key_is_an_error_that_says_the_remedy(keys: list[str] | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGJOBS_KEYS", raising=False)
    with pytest.raises(ConfigurationError, match=r"`pgjobs keys generate` prints one, for PGJOBS_KEYS or PgJobs"):
        Cipher(keys).dumps(1)


def test_bad_key_is_named_by_its_place_and_not_quoted() -> None:
    with pytest.raises(ConfigurationError, match=r"^encryption key 2 is no Fernet key") as caught:
        Cipher([NEW, "canary-key"]).check()
    assert "canary" not in str(caught.value) + repr(Cipher([NEW]))


def test_missing_library_is_an_error_that_says_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.fernet", None)
    for use in (lambda: Cipher([NEW]).dumps(1), lambda: Cipher([NEW]).loads({SEALED: "x"}), generate):
        with pytest.raises(ConfigurationError, match=r"pip install 'pgjobs-queue\[crypto\]'"):
            use()


def test_limits_hold_for_the_open_form_and_the_sealed_one() -> None:
    cipher = Cipher([NEW])
    with pytest.raises(EncodingError, match=r"^arguments takes"):
        cipher.dumps("x" * MAX_DOCUMENT_BYTES, what="arguments")
    with pytest.raises(EncodingError, match=r"^encrypted arguments takes"):
        cipher.dumps("x" * (MAX_DOCUMENT_BYTES - 100), what="arguments")
    assert len(cipher.dumps("x" * 700_000, what="arguments")) < MAX_DOCUMENT_BYTES


def test_what_cannot_be_stored_is_refused_without_its_keys() -> None:
    with pytest.raises(EncodingError) as caught:
        Cipher([NEW]).dumps({"canary-key": object()}, what="result")
    assert "canary" not in f"{caught.value} {caught.value.path}"


def test_arguments_are_checked_before_they_are_sealed_and_never_quoted() -> None:
    def send(address: str, kind: int) -> None: ...

    signature = Signature(send, "send", cipher=Cipher([NEW]))
    with pytest.raises(ArgumentsError, match="kind does not fit") as caught:
        signature.bind(("canary@example.com", "canary"), {})
    assert "canary" not in str(caught.value)
    assert Cipher([NEW]).loads(codec.loads(signature.encode(signature.bind(("ann", 1), {})))) == {
        "address": "ann",
        "kind": 1,
    }


def test_encrypting_task_takes_open_rows_too_if_its_results_can_be_sealed(monkeypatch: pytest.MonkeyPatch) -> None:
    def send(address: str) -> None: ...

    assert Signature(send, "send", cipher=Cipher([NEW])).unbind({"address": "ann"}) == (("ann",), {})
    monkeypatch.delenv("PGJOBS_KEYS", raising=False)
    with pytest.raises(ConfigurationError):
        Signature(send, "send", cipher=Cipher()).unbind({"address": "ann"})


@pytest.mark.parametrize("kind", [lambda a: a, lambda **rest: rest])
def test_task_that_does_not_encrypt_refuses_sealed_rows_whose_result_it_would_store_open(kind: Any) -> None:
    with pytest.raises(ArgumentsError, match="give the task encrypt=True here too"):
        Signature(kind, "t").unbind(stored(Cipher([NEW]), {"a": 1}))


def test_sealed_document_that_is_no_object_does_not_fit() -> None:
    with pytest.raises(ArgumentsError, match="no JSON object"):
        Signature(lambda a: a, "t", cipher=Cipher([NEW])).unbind(stored(Cipher([NEW]), [1]))


def test_plain_task_does_not_import_the_library() -> None:
    import subprocess

    code = (
        "import sys, pgjobs.worker; from pgjobs import PgJobs\n@PgJobs().task\ndef f(a: int): ...\n"
        "f.signature.encode({'a': 1}); f.signature.unbind({'a': 1}); print('cryptography' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_keys_may_stand_in_one_text() -> None:
    assert Cipher([NEW]).loads(stored(Cipher(f"{NEW}, {OLD}"), {"a": 1})) == {"a": 1}
