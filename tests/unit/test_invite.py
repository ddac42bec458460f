"""DESIGN section 2: what an INVITE must say, and what a refusal says of one that does not."""

from __future__ import annotations

import re
import string
from ipaddress import ip_address
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from eslbot.caller.invite import Refused, header, parse, parse_display, parse_workspace_id, source_ip
from eslbot.config.model import IP

WORKSPACE = "2b37ba17-7b20-4b3e-b138-1161e351d5c5"
#: The mission's own example.
DID, CRT = "00919990152080", "d444-6a1c8f2e-vce-3883"

dids = st.from_regex(r"00[0-9]{7,15}", fullmatch=True, alphabet=st.sampled_from("0123456789"))
_crt_characters = sorted(set(map(chr, range(0x21, 0x7F))) - set("\"'|"))
crts = st.text(st.sampled_from(_crt_characters), min_size=1, max_size=128).filter(
    lambda text: not re.search("%[0-9A-Fa-f]{2}", text)
)


def channel(**changes: str | None) -> dict[str, str]:
    headers: dict[str, str | None] = {
        "Unique-ID": "6e7cd1a1-0b1a-4ad5-8a2c-1d1b3b3b3b3b",
        "Caller-Caller-ID-Name": "Other Name",
        "variable_sip_from_display": f"{DID}|{CRT}",
        "variable_sip_from_user": "0401234567",
        "variable_sip_to_user": "bot",
        "variable_sip_network_ip": "203.0.113.10",
        "variable_sip_h_X-Workspace-ID": WORKSPACE,
        **{f"variable_{name}": value for name, value in changes.items()},
    }
    return {name: value for name, value in headers.items() if value is not None}


def refused(display: str) -> Refused:
    with pytest.raises(Refused) as caught:
        parse_display(display)
    assert caught.value.status == 400
    assert caught.value.phrase == "Bad Request"
    assert caught.value.why == "malformed_display_name"
    assert caught.value.retry_after is None
    return caught.value


def test_the_missions_invite() -> None:
    invite = parse(channel(), f"{DID}|{CRT}")
    assert (invite.did, invite.crt_object_id, invite.workspace_id) == (DID, CRT, WORKSPACE)
    assert (invite.caller, invite.to, invite.source_ip) == ("0401234567", "bot", "203.0.113.10")
    assert invite.call_id == "6e7cd1a1-0b1a-4ad5-8a2c-1d1b3b3b3b3b"


@given(dids, crts)
def test_every_well_formed_display_name_is_taken_as_it_is(did: str, crt: str) -> None:
    assert parse_display(f"{did}|{crt}") == (did, crt)
    invite = parse(channel(sip_from_display=f"{did}|{crt}"), f"{did}|{crt}")
    assert (invite.did, invite.crt_object_id) == (did, crt)


@pytest.mark.parametrize(
    ("display", "says"),
    [
        ("", "no display name"),
        (DID, "exactly one '|', found 0"),
        (f"{DID}|{CRT}|", "exactly one '|', found 2"),
        (f"{DID}||{CRT}", "exactly one '|', found 2"),
        ("|", "nothing before the '|'"),
        (f"|{CRT}", "nothing before the '|'"),
        (f"{DID}|", "nothing behind the '|'"),
        (f"+919990152080|{CRT}", "begins with '+'"),
        (f"+00919990152080|{CRT}", "begins with '+'"),
        (f"919990152080|{CRT}", "00 and 7 to 15 digits"),
        (f"00123456|{CRT}", "00 and 7 to 15 digits"),
        (f"00{'1' * 16}|{CRT}", "00 and 7 to 15 digits"),
        (f"0091 9990152080|{CRT}", "00 and 7 to 15 digits"),
        (f"00٩١٩٩٩٠١٥٢|{CRT}", "00 and 7 to 15 digits"),
        (f"{DID}\n|{CRT}", "00 and 7 to 15 digits"),
        (f" {DID}|{CRT}", "00 and 7 to 15 digits"),
        (f"{DID}|{'x' * 129}", "1 to 128 printable ASCII"),
        (f"{DID}|a b", "1 to 128 printable ASCII"),
        (f'{DID}|a"b', "1 to 128 printable ASCII"),
        (f"{DID}|a'b", "1 to 128 printable ASCII"),
        (f"{DID}|a\nb", "1 to 128 printable ASCII"),
        (f"{DID}|ab\n", "1 to 128 printable ASCII"),
        (f"{DID}|a\x00b", "1 to 128 printable ASCII"),
        (f"{DID}|a\x7fb", "1 to 128 printable ASCII"),
        (f"{DID}|ä", "1 to 128 printable ASCII"),
        (f"{DID}|\N{FULLWIDTH LATIN SMALL LETTER A}", "1 to 128 printable ASCII"),
        (f"{DID}|a%0Ab", "percent sequences"),
        (f"{DID}|a%7cb", "percent sequences"),
    ],
)
def test_a_malformed_display_name_is_refused_and_named(display: str, says: str) -> None:
    refusal = refused(display)
    assert says in refusal.detail
    assert repr(display[:200]) in refusal.detail


@pytest.mark.parametrize("crt", ["a", "x" * 128, "$\\{};`~!#&()*+,-./:<=>?@[]^_", "100%", "%zz", "a%4"])
def test_odd_but_allowed_ids(crt: str) -> None:
    assert parse_display(f"00{'1' * 7}|{crt}") == ("00" + "1" * 7, crt)


@given(st.text())
@example("00919990152080|x\n")
def test_what_passes_is_within_the_contract_whatever_came(display: str) -> None:
    try:
        did, crt = parse_display(display)
    except Refused as refusal:
        assert refusal.status == 400
        assert "\n" not in refusal.detail
        assert len(refusal.detail) < 2500
    else:
        assert f"{did}|{crt}" == display
        assert set(did) <= set(string.digits)
        assert did.startswith("00")
        assert 9 <= len(did) <= 17
        assert 1 <= len(crt) <= 128
        assert set(crt) <= set(_crt_characters)


def test_the_display_name_is_taken_from_the_from_header_only() -> None:
    with pytest.raises(Refused, match="no display name"):
        parse(channel(sip_from_display=None) | {"Caller-Caller-ID-Name": f"{DID}|{CRT}"})


@pytest.mark.parametrize(
    ("decoded", "raw"),
    [
        (f"{DID}|{CRT}", f"{DID}%7C{CRT}"),
        (f"{DID}|{CRT}", f"%30%30919990152080|{CRT}"),
        (f"{DID}|a$b", f"{DID}|a%24b"),
    ],
)
def test_percent_sequences_that_an_event_cannot_show_are_refused(decoded: str, raw: str) -> None:
    with pytest.raises(Refused) as caught:
        parse(channel(sip_from_display=decoded), raw)
    assert caught.value.status == 400
    assert repr(raw) in caught.value.detail


# -- where it comes from ----------------------------------------------------------------------------------

EDGES = (ip_address("10.0.0.4"), ip_address("2001:db8::4"))


@pytest.mark.parametrize("edge", [str(ip) for ip in EDGES])
@pytest.mark.parametrize("name", ["X-Source-IP", "x-source-ip", "X-SOURCE-IP"])
@pytest.mark.parametrize(
    ("text", "said"), [("203.0.113.10", "203.0.113.10"), (" 2001:DB8::10 ", "2001:db8::10")]
)
def test_an_edge_says_where_a_call_comes_from(edge: str, name: str, text: str, said: str) -> None:
    headers = channel(**{"sip_network_ip": edge, f"sip_h_{name}": text})
    assert source_ip(headers, EDGES) == said
    assert parse(headers, edges=EDGES).source_ip == said


@pytest.mark.parametrize("edges", [(), EDGES], ids=["no edge", "edges"])
@pytest.mark.parametrize(
    "sender", ["203.0.113.10", "10.0.0.5", "10.0.0.40", "", "10.0.0.4 ", "::ffff:10.0.0.4"]
)
def test_nobody_else_does(sender: str, edges: tuple[IP, ...]) -> None:
    headers = channel(**{"sip_network_ip": sender, "sip_h_X-Source-IP": "198.51.100.1"})
    assert source_ip(headers, edges) == sender
    assert parse(headers, edges=edges).source_ip == sender


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"X-Source-IP": ""},
        {"X-Source-IP": "acme"},
        {"X-Source-IP": "203.0.113.10:5060"},
        {"X-Source-IP": "203.0.113.10, 203.0.113.11"},
        {"X-Source-IP": "203.0.113.0/24"},
        {"X-Source-IP": "ARRAY::203.0.113.10|:203.0.113.11"},
        {"X-Source-IP": "203.0.113.10\nX: y"},
        {"X-Source-IP": "203.0.113.10", "x-source-ip": "203.0.113.11"},
        {"X-Source-IP": "203.0.113.10", "X-Source-IP-1": "203.0.113.11"},
        {"X-Source-IP-Of-SBC": "203.0.113.10"},
        {"Source-IP": "203.0.113.10"},
    ],
    ids=repr,
)
def test_an_edge_that_does_not_say_it_once_and_clearly_says_nothing(said: dict[str, str]) -> None:
    headers = channel(**{"sip_network_ip": "10.0.0.4", **{f"sip_h_{n}": v for n, v in said.items()}})
    assert source_ip(headers, EDGES) == ""


@given(st.text(max_size=40))
def test_what_passes_for_a_source_is_an_address(text: str) -> None:
    said = source_ip(channel(**{"sip_network_ip": "10.0.0.4", "sip_h_X-Source-IP": text}), EDGES)
    assert said == "" or ip_address(said) == ip_address(text.strip())


# -- X-Workspace-ID ---------------------------------------------------------------------------------------


@given(st.data())
def test_the_header_is_found_in_whatever_case_it_was_sent(data: st.DataObject) -> None:
    flips = data.draw(st.lists(st.booleans(), min_size=14, max_size=14))
    name = "".join(c.upper() if up else c.lower() for c, up in zip("X-Workspace-ID", flips, strict=True))
    headers = channel(**{"sip_h_X-Workspace-ID": None, f"sip_h_{name}": WORKSPACE})
    assert header(headers, "X-Workspace-ID") == WORKSPACE
    assert parse(headers).workspace_id == WORKSPACE


def test_other_headers_are_not_taken_for_it() -> None:
    headers = channel(**{"sip_h_X-Workspace-ID": None, "sip_h_X-Workspace-ID-2": WORKSPACE})
    with pytest.raises(Refused, match="X-Workspace-ID is missing") as caught:
        parse(headers)
    assert (caught.value.status, caught.value.why) == (400, "malformed_workspace_header")


@given(st.uuids(), st.booleans())
def test_every_uuid_is_taken_in_lower_case(uuid: UUID, upper: bool) -> None:
    text = str(uuid)
    assert parse_workspace_id(text.upper() if upper else text) == text


@pytest.mark.parametrize(
    "text",
    [
        "acme",
        WORKSPACE.replace("-", ""),
        "{" + WORKSPACE + "}",
        "urn:uuid:" + WORKSPACE,
        WORKSPACE + "\n",
        WORKSPACE + "0",
        WORKSPACE[:-1] + "g",
        WORKSPACE[:-1] + "٣",
        "x" * 5000,
    ],
)
def test_anything_else_is_refused_and_named(text: str) -> None:
    with pytest.raises(Refused, match="must be a UUID") as caught:
        parse_workspace_id(text)
    assert caught.value.status == 400
    assert repr(text[:200]) in caught.value.detail


@given(st.text(max_size=60))
def test_no_other_text_passes_for_a_workspace(text: str) -> None:
    try:
        found = parse_workspace_id(text)
    except Refused:
        return
    assert found == str(UUID(text)) == text.lower()
