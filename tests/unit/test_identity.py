"""Whose call it is, signed: what is believed, and what is not."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eslbot.caller.identity import MAX_TOKEN, VARIABLE, Signer
from tests.support.invites import INVITE

KEY, OTHER_KEY = bytes(range(32)), bytes(32)
signer = Signer([KEY])


@given(st.text(max_size=128), st.text(max_size=128), st.text(min_size=1, max_size=64))
def test_what_was_signed_is_read_again(caller: str, to: str, call_id: str) -> None:
    invite = replace(INVITE, caller=caller, to=to, call_id=call_id)
    token = signer.sign(invite)
    assert len(token) <= MAX_TOKEN
    assert signer.verify(call_id, token) == invite


def test_it_is_one_word_that_no_command_of_freeswitchs_changes() -> None:
    assert set(signer.sign(replace(INVITE, caller="a;b'c\"d${e}|f\n"))) <= set(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."
    )


def test_a_channel_is_read_by_its_uuid_and_its_variable_alone() -> None:
    channel = {
        "Unique-ID": INVITE.call_id,
        f"variable_{VARIABLE}": signer.sign(INVITE),
        "variable_sip_from_display": "Alice",
        "variable_sip_network_ip": "198.51.100.1",
    }
    assert signer.identity(channel) == INVITE
    assert signer.identity({**channel, "Unique-ID": "another"}) is None
    del channel[f"variable_{VARIABLE}"]
    assert signer.identity(channel) is None
    assert signer.identity({}) is None


@pytest.mark.parametrize("place", range(0, len(signer.sign(INVITE)), 7))
def test_one_changed_character_is_enough(place: int) -> None:
    token = signer.sign(INVITE)
    changed = token[:place] + ("B" if token[place] != "B" else "C") + token[place + 1 :]
    assert signer.verify(INVITE.call_id, changed) is None


@given(st.text())
def test_no_text_of_a_strangers_is_believed_or_does_harm(text: str) -> None:
    assert signer.verify(INVITE.call_id, text) is None


def test_another_spelling_of_the_same_bytes_is_none_of_ours() -> None:
    payload, _, mac = signer.sign(INVITE).partition(".")
    for spelt in (f"{payload}=.{mac}", f"{payload}.{mac}=", f"{payload}.{mac}\n", f"{payload}..{mac}"):
        assert signer.verify(INVITE.call_id, spelt) is None


def test_what_is_not_signed_is_not_even_parsed() -> None:
    deep = urlsafe_b64encode(b"[" * 3000).decode()
    assert signer.verify(INVITE.call_id, f"{deep}.{signer.sign(INVITE).partition('.')[2]}") is None


def test_a_new_key_is_believed_before_it_signs() -> None:
    """How a key is changed on several hosts: it is added behind the old one everywhere, then put in front."""
    old, both, new = Signer([KEY]), Signer([KEY, OTHER_KEY]), Signer([OTHER_KEY, KEY])
    assert both.sign(INVITE) == old.sign(INVITE)
    assert both.verify(INVITE.call_id, new.sign(INVITE)) == INVITE
    assert new.verify(INVITE.call_id, old.sign(INVITE)) == INVITE
    assert old.verify(INVITE.call_id, new.sign(INVITE)) is None


def test_a_signature_of_another_version_is_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as later:
        later.setattr("eslbot.caller.identity._FIELDS", ("workspace_id", "did"))
        token = signer.sign(INVITE)
    assert signer.verify(INVITE.call_id, token) is None


def test_a_fingerprint_tells_keys_apart_and_nothing_of_them() -> None:
    (fingerprint,) = signer.fingerprints
    assert fingerprint != Signer([OTHER_KEY]).fingerprints[0]
    assert KEY.hex()[:8] not in fingerprint
    assert KEY.hex() not in repr(signer) + json.dumps(signer.fingerprints)


def test_without_a_key_nothing_is_signed() -> None:
    with pytest.raises(ValueError):
        Signer([])
