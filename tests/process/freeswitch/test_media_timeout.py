"""A PBX that vanished without BYE, on a real FreeSWITCH: the one reason for which we end a living call."""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from eslbot.sim.rtp import RtpPacket
from tests.process.freeswitch.conftest import Caller, Controllers, Session, Switch, reinvite, running, until

#: Seconds of the time-out under test.
TIMEOUT = 2.0
SDP = "v=0\no=pbx 1 {} IN IP4 127.0.0.1\ns=-\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio {} RTP/AVP 0\na={}"


@pytest.fixture(scope="module")
def switch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Switch]:
    with running(tmp_path_factory, media_timeout=TIMEOUT) as switch:
        yield switch


def answered(controllers: Controllers, caller: Caller) -> tuple[Session, float]:
    """The controller's session of a call that it answers, and when it began to."""
    session = controllers.accept()
    session.connect()
    for command in ("linger 5", "event plain CHANNEL_HANGUP_COMPLETE"):
        session.send(command)
        session.read()
    began = time.monotonic()
    session.execute("answer")
    caller.up()
    return session, began


def ended_after(session: Session, since: float, seconds: float = TIMEOUT) -> dict[str, str]:
    """The call's last event, which comes when ``seconds`` are over, and not before."""
    last = session.read_event()
    passed = time.monotonic() - since
    assert last["Event-Name"] == "CHANNEL_HANGUP_COMPLETE"
    assert seconds - 0.05 < passed < seconds + 3, f"ended after {passed:.2f} s"
    return last


class Talk:
    """The PBX's own RTP: a packet every ``period`` seconds, to where the switch's come from."""

    def __init__(self, caller: Caller, payload_type: int = 0) -> None:
        _, self._switch = caller.rtp.recvfrom(2048)
        self._rtp, self._payload_type = caller.rtp, payload_type
        self._number = 0
        self.last = 0.0

    def send(self) -> None:
        self._number += 1
        packet = RtpPacket(self._payload_type, self._number, self._number * 160, 7, b"\xff" * 160)
        self._rtp.sendto(packet.pack(), self._switch)
        self.last = time.monotonic()

    @contextmanager
    def every(self, period: float) -> Iterator[None]:
        enough = threading.Event()

        def run() -> None:
            self.send()
            while not enough.wait(period):
                self.send()

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            enough.set()
            thread.join()


def test_a_silent_call_is_ended_and_the_last_event_says_why(
    switch: Switch, controllers: Controllers, tmp_path: Path
) -> None:
    controllers.open()
    with Caller(switch, tmp_path) as caller, caller.abandoned():
        last = ended_after(*answered(controllers, caller))
    assert (last["Hangup-Cause"], last["variable_hangup_cause"]) == ("MEDIA_TIMEOUT", "MEDIA_TIMEOUT")
    assert last["variable_sip_hangup_disposition"] == "send_bye"


def test_a_silent_call_is_ended_while_something_plays(
    switch: Switch, controllers: Controllers, tmp_path: Path
) -> None:
    controllers.open()
    with Caller(switch, tmp_path) as caller, caller.abandoned():
        session, began = answered(controllers, caller)
        session.execute("endless_playback", "tone_stream://%(1000,0,440);loops=-1")
        caller.rtp.recv(2048)
        assert ended_after(session, began)["Hangup-Cause"] == "MEDIA_TIMEOUT"


def test_a_silent_call_is_ended_while_no_controller_is_up(
    switch: Switch, controllers: Controllers, tmp_path: Path
) -> None:
    controllers.open()
    with Caller(switch, tmp_path) as caller, caller.abandoned():
        session, _ = answered(controllers, caller)
        controllers.close()
        session.die()
    until(lambda: switch.channels() == 0, "the channel outlives its BYE")


@pytest.mark.parametrize("payload_type", [0, 8, 101, 77], ids=["PCMU", "PCMA", "telephone-event", "unknown"])
def test_any_packet_starts_the_time_anew(
    switch: Switch, controllers: Controllers, tmp_path: Path, payload_type: int
) -> None:
    controllers.open()
    with Caller(switch, tmp_path) as caller, caller.abandoned():
        session, _ = answered(controllers, caller)
        talk = Talk(caller, payload_type)
        with talk.every(TIMEOUT * 0.6):
            told, _, _ = select.select([session.connection], [], [], TIMEOUT * 2)
            assert not told, session.read_event()
        assert ended_after(session, talk.last)["Hangup-Cause"] == "MEDIA_TIMEOUT"


@pytest.mark.parametrize("controller", [True, False], ids=["parked", "no controller"])
def test_a_call_with_audio_is_never_ended(
    switch: Switch, controllers: Controllers, tmp_path: Path, controller: bool
) -> None:
    controllers.open()
    with Caller(switch, tmp_path) as caller, caller.call():
        session, _ = answered(controllers, caller)
        with Talk(caller).every(0.02):
            if not controller:
                controllers.close()
                session.die()
            deadline = time.monotonic() + TIMEOUT * 2
            while time.monotonic() < deadline:
                caller.rtp.recv(2048)
            assert switch.channels() == 1


@pytest.mark.parametrize("direction", ["sendonly", "recvonly", "inactive"])
def test_a_pbx_that_holds_and_is_silent_is_no_exception(
    switch: Switch, controllers: Controllers, tmp_path: Path, direction: str
) -> None:
    controllers.open()
    caller = Caller(switch, tmp_path)
    caller.during = reinvite("2", SDP.format(2, caller.rtp.getsockname()[1], direction), 200)
    with caller, caller.abandoned():
        last = ended_after(*answered(controllers, caller))
    assert last["Hangup-Cause"] == "MEDIA_TIMEOUT"
