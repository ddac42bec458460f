"""The PBX's stand-in: its REST server as a client sees it, its calls against a small switch."""

from __future__ import annotations

import json
import re
import select
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import pytest
import requests
import trustme

from eslbot.audio import g711
from eslbot.sim.audio import gaps, heard, tone
from eslbot.sim.pbx import AmeyoServer, Answer, Drop, Load, Pbx, Recording, SippMissing, Stall, Voices
from eslbot.sim.pbx.media import Arrival
from eslbot.sim.pbx.notification import ROUTE, schema_problem
from eslbot.sim.pbx.pbx import DID, WORKSPACE
from eslbot.sim.pbx.ports import Ports
from eslbot.sim.pbx.trace import dialogs, failures, retry_after
from eslbot.sim.rtp import RtpPacket
from tests.support.unkind_ameyo import unkind_answer

HEADERS = {
    "Authorization": "acme-token",
    "Host": "acme.ameyo.app",
    "policy-name": "token",
    "Content-Type": "application/json",
}


PORTS = Ports("127.0.0.1")


def body(crt: str = "d444-1", **changes: object) -> dict[str, object]:
    return {
        "notificationId": "95",
        "uniqueId": crt,
        "callResponse": True,
        "sessionId": "na",
        "properties": {"agent_group": "sales"},
    } | changes


def post(server: AmeyoServer, document: object = None, *, drop: str = "", path: str = ROUTE, **headers: str):
    named = HEADERS | {name.replace("_", "-"): value for name, value in headers.items()}
    named = {name: value for name, value in named.items() if name != drop}
    data = document if isinstance(document, bytes) else json.dumps(document or body()).encode()
    return requests.post(server.url + path, data=data, headers=named, verify=str(server.ca_file), timeout=5)


# The REST server


@pytest.fixture
def accepted():
    return []


@pytest.fixture
def ameyo(accepted):
    with AmeyoServer(on_accept=accepted.append) as server:
        yield server
        assert server.errors == []


def test_a_correct_notification_is_accepted(ameyo, accepted):
    response = post(ameyo)
    assert response.status_code == 200 and response.json() == {"status": "success"}
    (request,) = ameyo.wait_for(lambda r: r.accepted)
    assert accepted == ["d444-1"]
    assert (request.status, request.problem, request.path) == (200, None, ROUTE)
    assert request.json == body() and request.properties == {"agent_group": "sales"}
    assert ("policy-name", "token") in request.headers, "order and spelling are as sent"
    assert request.header("HOST") == "acme.ameyo.app"
    assert abs(time.time() - request.at) < 5 and request.peer[0] == "127.0.0.1"
    assert ameyo.requests_for("d444-1") == [request] and ameyo.requests_for("other") == []


@pytest.mark.parametrize(
    ("status", "violation"),
    [
        (404, {"path": "/ameyorestapi/voice/other"}),
        (404, {"Host": "evil.ameyo.app"}),
        (404, {"Host": "acme.ameyo.app:8887"}),
        (404, {"drop": "Host"}),
        (403, {"policy_name": "tokens"}),
        (403, {"drop": "policy-name"}),
        (401, {"Authorization": "other-token"}),
        (401, {"Authorization": "Bearer acme-token"}),
        (401, {"drop": "Authorization"}),
        (415, {"Content_Type": "text/plain"}),
        (415, {"Content_Type": "application/json; charset=latin-1"}),
        (415, {"drop": "Content-Type"}),
        (400, {"document": b"{"}),
        (400, {"document": b"[]"}),
        (400, {"document": b"\xff\xfe"}),
        (400, {"document": body(notificationId=95)}),
        (400, {"document": body(callResponse="true")}),
        (400, {"document": body(callResponse=1)}),
        (400, {"document": body(sessionId="")}),
        (400, {"document": body(crt="")}),
        (400, {"document": body(properties=None)}),
        (400, {"document": body(properties={"a": {"nested": True}})}),
        (400, {"document": body(extra="x")}),
        (400, {"document": {"uniqueId": "d444-1"}}),
        (413, {"document": body(properties={"a": "x" * (1 << 20)})}),
    ],
)
def test_every_violation_has_its_status(ameyo, accepted, status, violation):
    response = post(ameyo, **violation)
    assert response.status_code == status
    assert response.json()["status"] == "error"
    (request,) = ameyo.wait_for(lambda r: True)
    assert request.status == status and request.problem and not request.accepted
    assert accepted == []


def test_a_key_that_stands_twice_and_other_methods(ameyo):
    assert schema_problem(json.dumps(body()).encode()) is None
    twice = json.dumps(body()).replace('{"notificationId"', '{"uniqueId": "x", "notificationId"', 1)
    assert "twice" in (schema_problem(twice.encode()) or "")
    response = requests.get(ameyo.url + ROUTE, headers=HEADERS, verify=str(ameyo.ca_file), timeout=5)
    assert response.status_code == 405


def test_tenants_have_their_own_tokens():
    with AmeyoServer({"a.example": "token-a", "b.example": "token-b"}) as server:
        assert post(server, Host="a.example", Authorization="token-a").status_code == 200
        assert post(server, Host="b.example", Authorization="token-a").status_code == 401


def test_connections_are_kept_alive(ameyo):
    with requests.Session() as session:
        for number in range(3):
            document = json.dumps(body(f"crt-{number}"))
            session.post(
                ameyo.url + ROUTE, data=document, headers=HEADERS, verify=str(ameyo.ca_file), timeout=5
            )
    assert len({request.peer for request in ameyo.requests}) == 1 and len(ameyo.requests) == 3


def test_a_client_that_does_not_trust_us_is_counted(ameyo):
    with pytest.raises(requests.exceptions.SSLError):
        requests.post(ameyo.url + ROUTE, json=body(), headers=HEADERS, timeout=5)
    with pytest.raises(TimeoutError):
        ameyo.wait_for(lambda r: True, timeout=0.05)
    deadline = time.monotonic() + 5
    while not ameyo.handshake_failures and time.monotonic() < deadline:
        time.sleep(0.01)
    assert ameyo.handshake_failures == 1


def test_a_script_of_answers(ameyo, accepted):
    ameyo.script("d444-1", [500, Answer(429, {"Retry-After": "7"}), Answer(503, body=b"oops"), 200, 418])
    first, second, third, fourth, fifth, sixth = (post(ameyo) for _ in range(6))
    assert [r.status_code for r in (first, second, third, fourth, fifth, sixth)] == [
        500, 429, 503, 200, 418, 200,
    ]  # fmt: skip
    assert second.headers["Retry-After"] == "7" and third.content == b"oops"
    ameyo.wait_for(lambda r: r.accepted, count=2)
    assert accepted == ["d444-1", "d444-1"]


def test_a_scripted_200_does_not_excuse_a_fault(ameyo, accepted):
    ameyo.script(None, [200])
    assert post(ameyo, Authorization="wrong").status_code == 401
    assert accepted == []


def test_scripts_for_one_call_and_for_all_others(ameyo):
    ameyo.script(None, [502], repeat_last=True)
    ameyo.script("vip", [404])
    assert [post(ameyo, body(crt)).status_code for crt in ("a", "b", "vip", "vip", "a")] == [
        502, 502, 404, 502, 502,
    ]  # fmt: skip
    ameyo.script(None, [])
    assert post(ameyo, body("a")).status_code == 200


def test_stalling_and_dropping(ameyo, accepted):
    ameyo.script("d444-1", [Stall(0.2, then=503), Stall(0.01), Drop(), Drop(accepted=True)])
    begun = time.monotonic()
    assert post(ameyo).status_code == 503
    assert time.monotonic() - begun >= 0.2
    for _ in range(3):
        with pytest.raises(requests.exceptions.ConnectionError):
            post(ameyo)
    assert [r.status for r in ameyo.wait_for(lambda r: True, count=4)] == [503, None, None, None]
    assert accepted == ["d444-1"]


def test_unkind_answers(ameyo, accepted):
    ameyo.script(
        "d444-1",
        [
            unkind_answer("not HTTP"),
            unkind_answer("text breaks off"),
            unkind_answer("100 and 103 in one piece"),
        ],
    )
    with pytest.raises(requests.exceptions.ConnectionError):
        post(ameyo)
    assert accepted == []
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        post(ameyo)
    ameyo.wait_for(lambda r: r.accepted)
    assert post(ameyo).status_code == 103, "which this client takes for the answer"
    ameyo.wait_for(lambda r: r.accepted, count=2)
    assert [r.status for r in ameyo.requests] == [None, 200, 200]
    assert accepted == ["d444-1", "d444-1"]


def test_an_unkind_answer_does_not_excuse_a_fault(ameyo, accepted):
    ameyo.script(None, [unkind_answer("text breaks off")])
    assert post(ameyo, Authorization="wrong").status_code == 401
    assert accepted == []


@pytest.mark.parametrize("kind", ["text never comes", "endless headers"])
def test_stop_ends_an_answer_that_has_no_end(kind):
    with AmeyoServer(tls=False) as server:
        server.script(None, [unkind_answer(kind)])
        with socket.create_connection((server.host, server.port)) as connection:
            data = json.dumps(body()).encode()
            named = HEADERS | {"Content-Length": str(len(data))}
            head = "".join(f"{name}: {value}\r\n" for name, value in named.items())
            connection.sendall(f"POST {ROUTE} HTTP/1.1\r\n{head}\r\n".encode() + data)
            server.wait_accepted("d444-1")
            begun = time.monotonic()
            server.stop()
            assert time.monotonic() - begun < 5
    assert server.errors == []


def test_stop_does_not_wait_for_a_stalled_request():
    with AmeyoServer() as server:
        server.script(None, [Stall(60)])
        outcome: list[BaseException] = []

        def ask() -> None:
            try:
                post(server)
            except requests.exceptions.ConnectionError as error:
                outcome.append(error)

        client = threading.Thread(target=ask)
        client.start()
        while not server.requests:
            time.sleep(0.005)
        begun = time.monotonic()
        server.stop()
        client.join(5)
        assert time.monotonic() - begun < 2 and len(outcome) == 1


def test_down_refuses_and_up_is_on_the_same_port(ameyo):
    with requests.Session() as session:
        arguments = {"headers": HEADERS, "verify": str(ameyo.ca_file), "timeout": 5}
        url = ameyo.url + ROUTE
        assert session.post(url, data=json.dumps(body()), **arguments).status_code == 200
        ameyo.down()
        with pytest.raises(requests.exceptions.ConnectionError):
            session.post(url, data=json.dumps(body()), **arguments)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((ameyo.host, ameyo.port), timeout=1).close()
        ameyo.up()
        assert ameyo.url + ROUTE == url
        assert session.post(url, data=json.dumps(body()), **arguments).status_code == 200
    assert len(ameyo.requests) == 2


def test_events_hold_no_token():
    events = []
    with AmeyoServer(emit=lambda event, fields: events.append((event, fields))) as server:
        post(server)
        post(server, Authorization="Wrong-Token")
    assert [fields["status"] for _, fields in events] == [200, 401]
    assert "oken" not in str(events).replace("is not this tenant's token", "")


# A small switch: what it does depends on the user part of the request URI


class Switch:
    """A UDP user agent server, one thread; it also answers with RTP of its own.

    Users: ``bot`` answers; ``bye`` answers and then hangs up; ``ring`` only rings, and honours CANCEL;
    ``deaf`` does nothing; a number refuses with that status; ``mixed`` does, by the last digit of the CRT
    Object ID, 0: 503, 1: bye, others: bot.
    """

    def __init__(self, ip: str = "127.0.0.1") -> None:
        self.ip = ip
        self.sip = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sip.bind((ip, PORTS.reserve_sip()))
        self.rtp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.rtp.bind((ip, PORTS.reserve_rtp()))
        self.rtp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.address = self.sip.getsockname()
        self.invites: dict[str, str] = {}
        self.requests: list[tuple[str, str, tuple[str, int]]] = []  # method, Call-ID, from
        self.messages: list[str] = []
        self.speech: list[RtpPacket] = []  # of the caller
        self.speakers: Counter[int] = Counter()  # packets by SSRC
        self.say = b""  # L16, sent to every caller once the call is up
        self.law = g711.PCMU
        self._talking: list[threading.Thread] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Switch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(5)
        for talker in self._talking:
            talker.join(5)
        self.sip.close()
        self.rtp.close()

    def byes(self) -> list[str]:
        """CRT Object IDs of the calls that were hung up by the PBX."""
        return [self.crt(call_id) for method, call_id, _ in self.requests if method == "BYE"]

    def crt(self, call_id: str) -> str:
        return re.search(r'\|([^"]+)"', self.invites[call_id])[1]

    def _run(self) -> None:
        while not self._stop.is_set():
            for ready in select.select([self.sip, self.rtp], [], [], 0.05)[0]:
                datagram, peer = ready.recvfrom(65536)
                if ready is self.rtp:
                    packet = RtpPacket.parse(datagram)
                    self.speech.append(packet)
                    self.speakers[packet.ssrc] += 1
                else:
                    self._take(datagram.decode(), peer)

    def _take(self, message: str, peer: tuple[str, int]) -> None:
        method, uri, _ = message.split(" ", 2)
        call_id = header(message, "Call-ID")
        self.messages.append(message)
        if method == "SIP/2.0":
            if header(message, "CSeq") == "77 INVITE":
                self._ours(call_id, peer, "ACK", 77)
            return
        self.requests.append((method, call_id, peer))
        match method:
            case "INVITE":
                if call_id not in self.invites:
                    self.invites[call_id] = message
                    self._invited(self._user(message, uri), message, peer)
                elif header(message, "CSeq") != header(self.invites[call_id], "CSeq"):
                    self._respond(message, peer, "200 OK")  # a re-INVITE, and not the first one again
            case "ACK" if self._user(self.invites[call_id], uri) == "bye" or self._hangs_up(call_id):
                self._bye(call_id, peer)
            case "ACK":
                talker = threading.Thread(target=self._talk, args=(call_id,))
                self._talking.append(talker)
                talker.start()
            case "BYE":
                self._respond(message, peer, "200 OK")
            case "CANCEL":
                self._respond(message, peer, "200 OK")
                self._respond(self.invites[call_id], peer, "487 Request Terminated")

    def _user(self, invite: str, _uri: str) -> str:
        user = re.match(r"INVITE sip:([^@]+)@", invite)[1]
        if user != "mixed":
            return user
        return {"0": "503", "1": "bye"}.get(self.crt(header(invite, "Call-ID"))[-1], "bot")

    def _hangs_up(self, call_id: str) -> bool:
        return self._user(self.invites[call_id], "") == "bye"

    def _invited(self, user: str, message: str, peer: tuple[str, int]) -> None:
        if user == "deaf":
            return
        self._respond(message, peer, "100 Trying")
        if user == "ring":
            self._respond(message, peer, "180 Ringing")
        elif user.isdigit():
            extra = ["Retry-After: 30"] if user == "503" else []
            self._respond(message, peer, f"{user} No", extra)
        else:
            port, kind = self.rtp.getsockname()[1], g711.PAYLOAD_TYPES[self.law]
            sdp = f"v=0\r\nc=IN IP4 {self.ip}\r\nm=audio {port} RTP/AVP {kind} 101\r\n"
            self._respond(message, peer, "200 OK", ["Content-Type: application/sdp"], sdp)

    def _respond(
        self, request: str, peer: tuple[str, int], status: str, extra: Sequence[str] = (), sdp: str = ""
    ) -> None:
        to = header(request, "To")
        lines = [
            f"SIP/2.0 {status}",
            *(f"{name}: {header(request, name)}" for name in ("Via", "From", "Call-ID", "CSeq")),
            f"To: {to if 'tag=' in to or status.startswith('100') else to + ';tag=switch'}",
            f"Contact: <sip:switch@{self.address[0]}:{self.address[1]}>",
            *extra,
            f"Content-Length: {len(sdp)}",
        ]
        self.sip.sendto(("\r\n".join(lines) + "\r\n\r\n" + sdp).encode(), peer)

    def take_up(self) -> None:
        """A re-INVITE within the one call there is, as of a switch that was restarted."""
        ((_, call_id, peer), *_) = self.requests
        sdp = f"v=0\r\nc=IN IP4 {self.ip}\r\nm=audio {self.rtp.getsockname()[1]} RTP/AVP 0\r\n"
        self._ours(call_id, peer, "INVITE", 77, sdp)

    def _bye(self, call_id: str, peer: tuple[str, int]) -> None:
        self._ours(call_id, peer, "BYE", 1)

    def _ours(self, call_id: str, peer: tuple[str, int], method: str, number: int, sdp: str = "") -> None:
        invite = self.invites[call_id]
        lines = [
            f"{method} sip:caller@{peer[0]}:{peer[1]} SIP/2.0",
            f"Via: SIP/2.0/UDP {self.address[0]}:{self.address[1]};branch=z9hG4bK-{call_id}-{method}",
            f"From: {header(invite, 'To')};tag=switch",
            f"To: {header(invite, 'From')}",
            f"Call-ID: {call_id}",
            f"CSeq: {number} {method}",
            f"Contact: <sip:switch@{self.address[0]}:{self.address[1]}>",
            "Max-Forwards: 70",
            f"Content-Length: {len(sdp)}",
        ]
        self.sip.sendto(("\r\n".join(lines) + "\r\n\r\n" + sdp).encode(), peer)

    def _talk(self, call_id: str) -> None:
        invite = self.invites[call_id]
        remote = (
            re.search(r"c=IN IP4 (\S+)", invite)[1],
            int(re.search(r"m=audio (\d+)", invite)[1]),
        )
        encoded = g711.encode(self.law, self.say)
        begun = time.monotonic()
        for number, at in enumerate(range(0, len(encoded), 160)):
            if self._stop.wait(max(0.0, begun + number * 0.02 - time.monotonic())):
                return
            packet = RtpPacket(
                g711.PAYLOAD_TYPES[self.law], number, at, 7, encoded[at : at + 160], marker=not number
            )
            self.rtp.sendto(packet.pack(), remote)


def header(message: str, name: str) -> str:
    return re.search(rf"(?im)^{name}: (.*?)\r$", message)[1]


@pytest.fixture
def switch():
    with Switch() as switch:
        yield switch


@pytest.fixture
def pbx(switch, ameyo):
    with Pbx(switch.address, ameyo=ameyo) as pbx:
        yield pbx


# Calls


def test_an_accepted_notification_hangs_up_that_call_and_no_other(pbx, switch, ameyo):
    first, second = pbx.call(crt_object_id="crt-1"), pbx.call(crt_object_id="crt-2")
    first.wait_answered()
    second.wait_answered()
    assert post(ameyo, body("crt-2"), Authorization="wrong").status_code == 401
    assert post(ameyo, body("crt-1")).status_code == 200
    result = first.wait(5)
    assert result.completed and (result.ended_by, result.cause) == ("pbx", "accepted")
    assert (result.status, result.reason, result.error, result.exit_status) == (200, "OK", None, 0)
    assert result.invited_at <= result.answered_at <= result.bye_at <= result.ended_at
    request = ameyo.wait_accepted("crt-1")
    assert 0 <= result.bye_at - request.at < 1
    assert second.result is None and switch.byes() == ["crt-1"]
    second.hang_up()
    assert second.wait(5).cause == "hang_up"
    assert switch.byes() == ["crt-1", "crt-2"]


def test_what_the_invite_looks_like(pbx, switch):
    call = pbx.call(crt_object_id="d444-69139d35-vce-daf-3883", hangup_after=0)
    result = call.wait(5)
    (invite,) = switch.invites.values()
    assert header(invite, "From").startswith('"00919990152080|d444-69139d35-vce-daf-3883" <sip:')
    assert header(invite, "X-Workspace-ID") == WORKSPACE
    assert "m=audio" in invite and "RTP/AVP 0 101" in invite and "a=rtpmap:0 PCMU/8000" in invite
    assert int(header(invite, "Content-Length")) == len(invite.split("\r\n\r\n", 1)[1])
    assert "INVITE sip:bot@" in result.sip_messages and "BYE sip:switch@" in result.sip_messages


@pytest.mark.parametrize(
    ("arguments", "expected", "unexpected"),
    [
        ({"display": ""}, "\r\nFrom:  <sip:caller@", '"'),
        ({"display": '"+919990152080|x%0Ay"'}, 'From: "+919990152080|x%0Ay" <', DID),
        ({"display": "0091|unquoted"}, "From: 0091|unquoted <sip:", '"'),
        ({"workspace_id": None}, "Max-Forwards: 70\r\nContent-Type", "X-Workspace-ID"),
        ({"workspace_header": "x-workspace-id"}, f"\r\nx-workspace-id: {WORKSPACE}\r\n", "X-Workspace-ID"),
        (
            {"extra_headers": ['P-Asserted-Identity: "Other|Name" <sip:o@x>', "X-Other: 1"]},
            '\r\nP-Asserted-Identity: "Other|Name" <sip:o@x>\r\nX-Other: 1\r\n',
            "X-Third",
        ),
        ({"codec": "PCMA"}, "RTP/AVP 8 101\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:101", "PCMU"),
        ({"codec": ("PCMA", "PCMU")}, "RTP/AVP 8 0 101\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:0", "G729"),
        ({"codec": "G729"}, "RTP/AVP 18 101\r\na=rtpmap:18 G729/8000\r\n", "PCMU"),
        ({"user": "2000", "media": "sipp"}, "INVITE sip:2000@", "sip:bot@"),
    ],
)
def test_other_invites(pbx, switch, arguments, expected, unexpected):
    if "user" not in arguments:
        arguments = arguments | {"user": "403"}
    pbx.call(hangup_after=0, **arguments).wait(5)
    (invite,) = switch.invites.values()
    assert expected in invite
    assert unexpected not in invite


def test_what_an_injection_file_cannot_hold_is_an_error(pbx, switch):
    for arguments in (
        {"display": '"a;b"'},
        {"display": '"a\r\nb"'},
        {"extra_headers": ["A: 1"] * 4},
        {"codec": "opus"},
        {"media": "telepathy"},
    ):
        with pytest.raises(ValueError):
            pbx.call(**arguments)
    assert switch.invites == {}


def test_a_bye_from_the_switch_is_noticed(pbx):
    call = pbx.call(user="bye")
    result = call.wait(5)
    assert result.answered and not result.completed
    assert (result.ended_by, result.cause, result.exit_status) == ("switch", None, 1)
    assert "unexpected BYE" in result.error


@pytest.mark.parametrize("status", [400, 403, 488, 503])
def test_a_refusal_is_a_result(pbx, switch, status):
    call = pbx.call(user=str(status))
    result = call.wait(5)
    assert (result.status, result.answered, result.ended_by) == (status, False, None)
    assert (result.error, result.reason, result.completed) == (None, "No", False)
    assert result.retry_after == (30 if status == 503 else None)
    assert [method for method, _, _ in switch.requests] == ["INVITE", "ACK"]
    with pytest.raises(RuntimeError, match="not answered"):
        call.wait_answered()


def test_a_refusal_nobody_thought_of_is_told_too(pbx):
    result = pbx.call(user="606").wait(5)
    assert result.status == 606 and "606" in result.error


def test_the_caller_hangs_up_after_a_while(pbx):
    result = pbx.call(hangup_after=0.4).wait(5)
    assert result.completed and result.cause == "hangup_after"
    assert 0.35 < result.bye_at - result.answered_at < 1.5


def test_hanging_up_before_the_answer_ends_the_call_once_it_is_answered(pbx):
    call = pbx.call()
    call.hang_up()
    result = call.wait(5)
    assert result.completed and result.cause == "hang_up"


def offered_again(pbx, switch, answer):
    """A call in which the switch offers anew, and how the PBX answers that."""
    call = pbx.call(offered=answer)
    call.wait_answered()
    switch.take_up()
    return call


def until(condition):
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)  # another process: there is no event to wait for


@pytest.mark.parametrize("offered", ["sendrecv", "sendonly", "recvonly", "inactive"])
def test_a_reinvite_of_the_switch_is_answered_and_the_call_goes_on(pbx, switch, offered):
    call = offered_again(pbx, switch, offered)
    call.wait_taken_up()
    assert call.offered == call.taken_up == 1
    (answer,) = [m for m in switch.messages if m.startswith("SIP/2.0 200") and "77 INVITE" in m]
    assert f"a={offered}\r\n" in answer
    assert re.search(r"m=audio [1-9]\d* RTP/AVP 0 101\r\n", answer)
    call.hang_up()
    assert call.wait(5).completed


@pytest.mark.parametrize("status", ["481", "488", "491", "500"])
def test_a_reinvite_of_the_switch_is_refused(pbx, switch, status):
    call = offered_again(pbx, switch, status)
    until(lambda: [m for m in switch.messages if m.startswith("SIP/2.0 ")])
    call.offer("sendrecv")  # it goes on behind the ACK
    assert (call.offered, call.taken_up) == (1, 0)
    assert [m for m in switch.messages if m.startswith(f"SIP/2.0 {status} ")]
    call.hang_up()
    assert call.wait(5).completed


def test_a_reinvite_of_the_switch_is_not_answered(pbx, switch):
    call = offered_again(pbx, switch, "nothing")
    until(lambda: call.offered)
    call.offer("sendrecv")
    assert (call.offered, call.taken_up) == (1, 0)
    assert not [m for m in switch.messages if m.startswith("SIP/2.0") and "77 INVITE" in m]
    call.hang_up()
    assert call.wait(5).completed


def test_an_answer_that_nobody_gives_is_refused(pbx):
    with pytest.raises(ValueError, match="600"):
        pbx.call(offered="600")


def test_a_call_is_held_and_goes_on(pbx, switch):
    call = pbx.call()
    with pytest.raises(RuntimeError, match="not up"):
        call.offer("sendonly")
    call.wait_answered()
    for direction in ("sendonly", "sendrecv", "inactive", "sendrecv"):
        call.offer(direction)
    with pytest.raises(ValueError, match="held"):
        call.offer("held")
    call.hang_up()
    assert call.wait(5).completed
    requests = [m for m in switch.messages if m.startswith(("INVITE", "BYE"))]
    numbers = [int(header(m, "CSeq").split()[0]) for m in requests]
    assert numbers == [1, 3, 4, 5, 6, 7]
    assert re.findall(r"a=(send\w+|recvonly|inactive)\r", "".join(requests)) == [
        "sendonly",
        "sendrecv",
        "inactive",
        "sendrecv",
    ]


def test_bye_can_be_late(switch, ameyo):
    with Pbx(switch.address, ameyo=ameyo, bye_delay=0.5) as pbx:
        call = pbx.call(crt_object_id="late")
        call.wait_answered()
        post(ameyo, body("late"))
        assert call.wait(5).bye_at - ameyo.wait_accepted("late").at >= 0.5


def test_a_switch_that_only_rings_is_cancelled(pbx, switch):
    result = pbx.call(user="ring", answer_timeout=0.3).wait(5)
    assert (result.status, result.answered, result.error) == (487, False, None)
    assert result.cancelled_at - result.invited_at >= 0.3
    assert [method for method, _, _ in switch.requests] == ["INVITE", "CANCEL", "ACK"]


def test_a_deaf_switch_costs_no_more_than_the_timeout(pbx):
    begun = time.monotonic()
    result = pbx.call(user="deaf", timeout=0.7).wait(10)
    assert time.monotonic() - begun < 5
    assert (result.status, result.answered, result.ended_by) == (None, False, None)
    assert result.invited_at is not None and "was killed" in result.error


def test_a_call_that_nobody_ends_is_hung_up_in_the_end(pbx):
    result = pbx.call(timeout=0.5).wait(5)
    assert (result.ended_by, result.cause, result.completed) == ("pbx", "timeout", False)


def test_another_source_address(switch, ameyo):
    with Pbx(switch.address, local_ip="127.0.0.9", ameyo=ameyo) as pbx:
        switch.say = tone(440, 0.2)
        call = pbx.call()
        call.wait_heard(440, 0.1, timeout=5)
        call.hang_up()
        assert call.wait(5).completed
    assert {peer[0] for _, _, peer in switch.requests} == {"127.0.0.9"}
    (invite,) = switch.invites.values()
    assert "c=IN IP4 127.0.0.9" in invite and "@127.0.0.9:" in header(invite, "Contact")


def test_tcp(ameyo):
    port = PORTS.reserve_sip()
    arguments = f"-sn uas -i 127.0.0.1 -mi 127.0.0.1 -mp {PORTS.reserve_rtp()} -ci 127.0.0.1 -p {port}"
    uas = subprocess.Popen(
        ["sipp", *arguments.split(), "-t", "t1", "-nostdin", "-timeout", "20s"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except ConnectionRefusedError:
                time.sleep(0.02)
        with Pbx(("127.0.0.1", port), ameyo=ameyo) as pbx:
            call = pbx.call(crt_object_id="by-tcp", transport="tcp")
            call.wait_answered()
            post(ameyo, body("by-tcp"))
            result = call.wait(5)
    finally:
        uas.kill()
        uas.wait()
    assert result.completed and result.cause == "accepted"
    assert "Via: SIP/2.0/TCP" in result.sip_messages


# Audio


@pytest.mark.parametrize("law", [g711.PCMU, g711.PCMA])
def test_both_sides_hear_each_other(pbx, switch, law):
    switch.say, switch.law = tone(440, 0.4) + tone(880, 0.2), law
    call = pbx.call(codec=("PCMU", "PCMA"))
    call.wait_heard(880, 0.16, timeout=5)
    call.hang_up()
    result = call.wait(5)
    assert heard(result.received, 440) == pytest.approx(0.4, abs=0.041)
    assert heard(result.received, 880) == pytest.approx(0.2, abs=0.041)
    assert result.recording.lost() == 0
    assert result.answered_at - 0.1 < result.recording.first_heard(440) < result.recording.first_heard(880)
    speech = b"".join(g711.decode(law, packet.payload) for packet in switch.speech)
    assert heard(speech, 350) > 0.3 and gaps(speech) == []
    assert {packet.payload_type for packet in switch.speech} == {g711.PAYLOAD_TYPES[law]}
    sent = [packet.timestamp for packet in switch.speech]
    assert {(later - earlier) % 160 for earlier, later in pairwise(sent)} == {0}


def test_the_caller_keeps_time(pbx, switch):
    result = pbx.call(hangup_after=2.0).wait(10)
    up = result.bye_at - result.answered_at
    assert len(switch.speech) == pytest.approx(up / 0.02, abs=5)
    numbers = [packet.sequence for packet in switch.speech]
    assert numbers == [(numbers[0] + n) & 0xFFFF for n in range(len(numbers))]


def test_keys(pbx, switch):
    call = pbx.call()
    call.wait_answered()
    call.send_dtmf("5#", duration_ms=80)
    received = Recording()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and received.digits() != "5#":
        received = Recording()
        for packet in list(switch.speech):
            received.add(Arrival(0.0, packet))
        time.sleep(0.02)
    time_of_end = len(switch.speech) + 2
    while len(switch.speech) < time_of_end + 4:  # until it speaks again
        assert time.monotonic() < deadline
        time.sleep(0.01)
    call.hang_up()
    call.wait(5)
    events = [packet for packet in switch.speech if packet.payload_type == 101]
    assert received.digits() == "5#"
    first = [packet for packet in events if packet.payload[0] == 5]
    assert [packet.marker for packet in first] == [True] + [False] * 5
    assert len({packet.timestamp for packet in first}) == 1
    assert [int.from_bytes(packet.payload[2:], "big") for packet in first] == [160, 320, 480, 640, 640, 640]
    assert [packet.payload[1] >> 7 for packet in first] == [0, 0, 0, 1, 1, 1]
    after = switch.speech[switch.speech.index(first[-1]) + 1]
    assert after.payload_type == 0 and after.timestamp - first[0].timestamp == 4 * 160
    with pytest.raises(ValueError):
        call.send_dtmf("x")


def test_a_silent_caller_sends_silence(pbx, switch):
    pbx.call(caller_tone=None, hangup_after=0.2).wait(5)
    assert switch.speech and {packet.payload for packet in switch.speech} == {b"\xff" * 160}


def test_wait_heard_gives_up(pbx):
    call = pbx.call()
    call.wait_answered()
    with pytest.raises(TimeoutError, match="440"):
        call.wait_heard(440, timeout=0.2)
    call.hang_up()
    with pytest.raises(TimeoutError):
        call.wait_heard(440, timeout=5)


def packets(*spoken: tuple[float, int, bytes]) -> Recording:
    recording = Recording()
    for at, sequence, l16 in spoken:
        recording.add(Arrival(at, RtpPacket(0, sequence, 0, 1, g711.encode(g711.PCMU, l16))))
    return recording


def test_a_late_packet_is_a_hole_the_caller_hears():
    frame = tone(400, 0.02)
    times = [0.0, 0.02, 0.04, 0.20, 0.22]
    recording = packets(*[(at, number, frame) for number, at in enumerate(times)])
    # Three frames from 0.04 on play until 0.10; the fourth came at 0.20 and plays at 0.24.
    assert [(g.start, round(g.length, 3)) for g in gaps(recording.as_heard(0.04))] == [
        (pytest.approx(0.06, abs=0.002), pytest.approx(0.14, abs=0.002))
    ]
    assert gaps(recording.as_heard(0.20)) == [] == gaps(recording.linear())
    assert recording.pauses() == [(pytest.approx(0.04), pytest.approx(0.16))]
    assert recording.lost() == 0


def test_lost_packets_are_counted_over_the_wrap():
    frame = tone(400, 0.02)
    recording = packets(*[(0.0, number, frame) for number in (65533, 65535, 0, 3, 2)])
    assert recording.lost() == 2


# Many calls


def test_load_accounts_for_every_call(pbx, switch):
    result = pbx.load(30, 60, user="mixed", hangup_after=0.5, timeout=20)
    assert (result.calls, result.answered, result.completed) == (30, 27, 24)
    assert result.refused == Counter({503: 3}) and result.unexpected_byes == 3 and result.failed == 0
    assert result.exit_status == 1 and result.causes == {"UnexpectedMessage": 3}
    assert set(result.set_up) == {50, 95, 99, 100} and result.set_up[100] < 5
    assert len(set(result.crt_object_ids)) == 30 == len(switch.invites)
    assert result.dialogs[result.crt_object_ids[0]].ended_by == "switch"  # …-000001
    assert result.dialogs[result.crt_object_ids[9]].status == 503  # …-000010
    assert Counter(switch.byes()) == Counter(
        crt for crt in result.crt_object_ids if crt[-1] not in ("0", "1")
    )
    assert len(switch.speakers) >= 24, "every call that lasted was spoken on"
    speech = b"".join(g711.decode(g711.PCMU, packet.payload) for packet in switch.speech[:20])
    assert len(speech) == 20 * 320


def test_load_ends_by_notifications(pbx, switch, ameyo):
    def hand_off() -> None:
        done: set[str] = set()
        deadline = time.monotonic() + 10
        while len(done) < 10 and time.monotonic() < deadline:
            up = {switch.crt(call_id) for method, call_id, _ in list(switch.requests) if method == "ACK"}
            for crt in up - done:
                post(ameyo, body(crt))
                done.add(crt)
            time.sleep(0.02)

    notifier = threading.Thread(target=hand_off)
    notifier.start()
    result = pbx.load(10, 50, crt_prefix="n", timeout=20)
    notifier.join(10)
    assert (result.completed, result.error, result.exit_status) == (10, None, 0)
    assert sorted(switch.byes()) == sorted(result.crt_object_ids)


def test_load_that_does_not_end_is_ended(pbx):
    begun = time.monotonic()
    result = pbx.load(3, 50, timeout=0.6)
    assert time.monotonic() - begun < 4
    assert result.answered == 3 and "not over in time" in result.error


def test_load_with_voices_is_watched_while_it_goes_on(pbx, switch):
    with Voices() as voices:
        load = pbx.begin_load(4, 50, crt_prefix="v", voices=voices)
        assert load.pid is not None and not load.over()
        deadline = time.monotonic() + 10
        while sum(dialog.answered for dialog in load.dialogs().values()) < 4 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert {crt: dialog.ended_at for crt, dialog in load.dialogs().items()} == dict.fromkeys(
            load.crt_object_ids
        )
        while len(switch.speakers) < 4 and time.monotonic() < deadline:
            time.sleep(0.02)
        load.hang_up()
        result = load.finish(10)
        report = load.voices_report()
    assert (result.completed, result.error) == (4, None)
    assert set(report.voices) == set(load.crt_object_ids)
    assert all(voice.sent > 0 for voice in report.voices.values())
    assert load.pid is None and load.dialogs() == {}
    with pytest.raises(RuntimeError, match="finished"):
        load.finish()
    with pytest.raises(RuntimeError, match="by SIPp"):
        Load([], [], None, pbx._control, lambda load, run: None, accepts=True).voices_report()


def test_ameyo_with_a_certificate_that_is_given(tmp_path):
    authority, given = trustme.CA(), tmp_path / "ameyo.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(given)
    trusted = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(trusted)
    with AmeyoServer(certificate=given) as server:
        answer = requests.post(server.url + ROUTE, data="{}", headers=HEADERS, verify=str(trusted), timeout=5)
        assert answer.status_code == 400 and server.handshake_failures == 0
        with pytest.raises(RuntimeError):
            server.ca_file  # noqa: B018  # there is none of ours
    given.write_text("no certificate")
    with pytest.raises(OSError, match="PEM"):
        AmeyoServer(certificate=given).start()


# Order


def test_stop_hangs_up_the_calls_of_a_load(switch):
    pbx = Pbx(switch.address).start()
    load = pbx.begin_load(5, 100, crt_prefix="s")
    deadline = time.monotonic() + 10
    while sum(method == "ACK" for method, _, _ in list(switch.requests)) < 5 and time.monotonic() < deadline:
        time.sleep(0.02)
    pbx.stop()
    assert sorted(switch.byes()) == load.crt_object_ids


def test_without_sipp_the_error_names_the_package(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SippMissing, match="sip-tester"):
        Pbx()


def test_stop_leaves_nothing_behind(switch, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = set(threading.enumerate())
    events = []
    pbx = Pbx(switch.address, emit=lambda event, fields: events.append(event)).start()
    up, ringing = pbx.call(), pbx.call(user="ring")
    up.wait_answered()
    runs = list(pbx._runs)
    assert len(runs) == 2 and len(list(tmp_path.iterdir())) == 2
    begun = time.monotonic()
    pbx.stop()
    assert time.monotonic() - begun < 6
    assert up.wait(0).cause == "stop" and up.wait(0).ended_by == "pbx"
    assert not ringing.wait(0).answered
    assert all(run.process.returncode is not None for run in runs)
    assert list(tmp_path.iterdir()) == []
    assert [thread for thread in threading.enumerate() if thread not in before | set(switch._talking)] == []
    assert Counter(events) == Counter(invite=2, answered=1, hang_up=2, over=2)
    with pytest.raises(RuntimeError):
        pbx.call()


def test_many_calls_by_processes_of_their_own(pbx, switch):
    calls = [pbx.call(crt_object_id=f"own-{number}", hangup_after=0.5) for number in range(20)]
    results = [call.wait(15) for call in calls]
    assert [result.error for result in results] == [None] * 20
    assert all(result.completed for result in results)
    assert len({header(invite, "Contact") for invite in switch.invites.values()}) == 20


def test_trace_of_a_whole_call():
    lines = """\
2026-11-22\t18:50:12.330154\t1795373412.330154\tS\t1-6048@127.0.0.9\tCSeq:1 INVITE\tINVITE sip:b@x SIP/2.0
2026-11-22\t18:50:12.830154\t1795373412.830154\tS\t1-6048@127.0.0.9\tCSeq:1 INVITE\tINVITE sip:b@x SIP/2.0
2026-11-22\t18:50:13.330972\t1795373413.330972\tR\t1-6048@127.0.0.9\tCSeq:1 INVITE\tSIP/2.0 180 Ringing
2026-11-22\t18:50:13.332101\t1795373413.332101\tR\t1-6048@127.0.0.9\tCSeq:1 INVITE\tSIP/2.0 200 OK
2026-11-22\t18:50:13.333674\t1795373413.333674\tS\t1-6048@127.0.0.9\tCSeq:\tCall-ID: 1-6048@127.0.0.9
2026-11-22\t18:50:14.833956\t1795373414.833956\tS\t1-6048@127.0.0.9\tCSeq:2 BYE\tBYE sip:bot@127.0.0.1 SIP/2.0
2026-11-22\t18:50:14.834035\t1795373414.834035\tR\t1-6048@127.0.0.9\tCSeq:2 BYE\tSIP/2.0 200 OK
2026-11-22\t18:50:15.8340""".splitlines()
    (dialog,) = dialogs(lines).values()
    assert (dialog.invited_at, dialog.answered_at) == (1795373412.330154, 1795373413.332101)
    assert (dialog.ended_by, dialog.bye_at, dialog.bye_status) == ("pbx", 1795373414.833956, 200)
    assert retry_after("SIP/2.0 503 No\r\nretry-after: 12 (busy)\r\n") == 12
    assert retry_after("SIP/2.0 503 No\r\n") is None
    assert failures("A(P);FailedCall(C);FailedX(P);FailedX(C);\n1;1;1;0;\n1;2;1;2;\n") == {"X": 2}
    assert failures("") == {}
