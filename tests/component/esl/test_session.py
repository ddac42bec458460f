"""One session over a real socket, FreeSWITCH's end played by a script."""

from __future__ import annotations

import contextlib
import gc
import resource
import time
from collections.abc import Callable, Iterator

import gevent
import pytest
from gevent import socket
from greenswitch.esl import OutboundSessionHasGoneAway

from eslbot.esl import connection
from eslbot.esl.errors import CommandFailed, CommandTimeout, ProtocolError, UnsafeArgument
from eslbot.esl.frames import MAX_BODY_BYTES, MAX_HEADER_BYTES
from eslbot.esl.gone import CallerHungUp, ConnectionLost
from eslbot.esl.session import Session
from tests.support import wire
from tests.support.peer import Peer, bounded, fields, tcp_pair


class Line:
    """A session and its FreeSWITCH."""

    def __init__(self, timeout: float = 2.0) -> None:
        ours, theirs = tcp_pair()
        self.peer = Peer(theirs)
        self.session = Session(("127.0.0.1", 1), ours, timeout)

    def connect(self, **headers: str) -> None:
        greenlet = gevent.spawn(self.session.connect)
        self.peer.connected({"Unique-ID": "the-call", "variable_uuid": "the-call", **headers})
        greenlet.get()


@pytest.fixture
def line() -> Iterator[Line]:
    with bounded(15):
        made = Line()
        made.connect()
        yield made
        made.session.stop()
        made.peer.close()


@pytest.fixture
def impatient() -> Iterator[Line]:
    with bounded(15):
        made = Line(timeout=0.1)
        yield made
        made.session.stop()
        made.peer.close()


def later(function: Callable[[], object]) -> gevent.Greenlet:
    """Run it beside the test, and let it come to its first wait."""
    greenlet = gevent.spawn(function)
    gevent.sleep(0)
    return greenlet


def execute(line: Line, application: str, argument: str = "") -> tuple[object, str]:
    """An execution that FreeSWITCH has taken, and its Event-UUID."""
    greenlet = later(lambda: line.session.execute(application, argument))
    command = line.peer.expect("sendmsg")
    line.peer.send(wire.reply("+OK"))
    return greenlet.get(), fields(command)["Event-UUID"]


def completed(event_uuid: str, **headers: str) -> bytes:
    return wire.event({"Event-Name": "CHANNEL_EXECUTE_COMPLETE", "Application-UUID": event_uuid, **headers})


HUNG_UP = wire.event({"Event-Name": "CHANNEL_HANGUP", "Hangup-Cause": "NORMAL_CLEARING"})
HUNG_UP_COMPLETE = wire.event(
    {
        "Event-Name": "CHANNEL_HANGUP_COMPLETE",
        "Hangup-Cause": "NORMAL_CLEARING",
        "variable_sip_hangup_disposition": "recv_bye",
    }
)


# -- commands and replies ---------------------------------------------------------------------------------


def test_connect_gives_the_channel(line: Line) -> None:
    assert line.session.uuid == "the-call"
    assert line.session.session_data["variable_uuid"] == "the-call"


@pytest.mark.parametrize(
    ("reply", "plain"),
    [
        ("00919990152080|a", {"sip_from_display": "00919990152080|a"}),
        ("00919990152080%7Ca", {"sip_from_display": "00919990152080%7Ca"}),
        ("", {"sip_from_display": ""}),
        ("+OK", {}),
        ("-ERR command not found", {}),
    ],
)
def test_a_plain_variable_comes_with_the_channel_as_it_is(reply: str, plain: dict[str, str]) -> None:
    with bounded():
        line = Line()
        greenlet = later(lambda: line.session.connect("sip_from_display"))
        assert [line.peer.command(), line.peer.command()] == ["connect", "getvar sip_from_display"]
        line.peer.send(wire.reply("+OK", {"Unique-ID": "u"}) + wire.reply(reply))
        assert greenlet.get()["Unique-ID"] == "u"
        assert line.session.plain == plain
        line.session.forget_channel()
        assert line.session.plain == {}
        line.session.stop()


def test_a_channel_whose_plain_variable_never_comes_is_no_call() -> None:
    with bounded():
        line = Line(timeout=0.1)
        greenlet = later(lambda: line.session.connect("sip_from_display"))
        line.peer.expect("connect")
        line.peer.send(wire.reply("+OK", {"Unique-ID": "u"}))
        with pytest.raises(CommandTimeout, match="getvar"):
            greenlet.get()
        line.session.stop()


def test_replies_come_in_the_order_of_the_commands(line: Line) -> None:
    results = [line.session.ask(f"api echo {number}") for number in range(50)]
    assert [line.peer.command() for _ in range(50)] == [f"api echo {number}" for number in range(50)]
    line.peer.send(b"".join(wire.api_response(str(number)) for number in range(50)))
    assert [result.wait(1).data for result in results] == [str(number) for number in range(50)]


def test_greenlets_that_send_at_once_get_each_their_own_reply(line: Line) -> None:
    greenlets = [gevent.spawn(line.session.api, f"echo {number}") for number in range(20)]
    for _ in greenlets:
        line.peer.send(wire.api_response(line.peer.expect("api echo ").split()[-1]))
    assert [greenlet.get() for greenlet in greenlets] == [str(number) for number in range(20)]


def test_events_between_replies_disturb_nobody(line: Line) -> None:
    greenlet = later(lambda: line.session.api("status"))
    line.peer.expect("api status")
    line.peer.send(wire.event({"Event-Name": "DTMF"}) + wire.api_response("up") + wire.reply("+OK spare"))
    assert greenlet.get() == "up"
    assert line.session.next_event(1).name == "DTMF"


def test_a_failed_command_says_so_without_its_arguments(line: Line) -> None:
    greenlet = later(lambda: line.session.send("filter Unique-ID a-secret"))
    line.peer.expect("filter")
    line.peer.send(wire.reply("-ERR no such filter"))
    with pytest.raises(CommandFailed, match="-ERR no such filter") as caught:
        greenlet.get()
    assert "a-secret" not in str(caught.value)


def test_an_api_error_is_an_answer(line: Line) -> None:
    greenlet = later(lambda: line.session.api("uuid_audio_stream the-call stop"))
    line.peer.expect("api")
    line.peer.send(wire.api_response("-ERR Operation Failed\n"))
    assert greenlet.get() == "-ERR Operation Failed\n"


def test_subscribing_waits_for_nothing(line: Line) -> None:
    line.session.subscribe("DTMF", "mod_audio_stream::json")
    assert [line.peer.command() for _ in range(3)] == [
        "linger 5",
        "filter Unique-ID the-call",
        "event plain CHANNEL_EXECUTE_COMPLETE CHANNEL_HANGUP CHANNEL_HANGUP_COMPLETE BACKGROUND_JOB "
        "DTMF CUSTOM mod_audio_stream::json",
    ]
    line.peer.send(wire.reply() * 3)
    assert line.session.next_event(0.02) is None


def test_a_refused_subscription_ends_the_session(line: Line) -> None:
    line.session.subscribe("DTMF")
    line.peer.send(wire.reply() * 2 + wire.reply("-ERR no keywords supplied"))
    with pytest.raises(ConnectionLost, match="refused the subscription"):
        line.session.next_event(2)


def test_settled_is_what_freeswitch_has_answered(line: Line) -> None:
    greenlet = later(line.session.settle)
    line.peer.expect("noevents")
    assert not greenlet.ready()
    line.peer.send(wire.reply("+OK no longer listening for events"))
    greenlet.get()


def test_variables_are_quoted_and_not_waited_for(line: Line) -> None:
    value = "{\"a\": 'b'} \\ $ ; {} ${x}\nsecond line"
    line.session.set_variables({"one": value, "two": None, "three": "half \ud800 a pair", "four": "4"})
    line.session.set_variables({"five": "5"})
    commands = [line.peer.command() for _ in range(4)]
    assert wire.separate(commands[0].removeprefix("api uuid_setvar "), 3) == ["the-call", "one", value]
    assert commands[1] == "api uuid_setvar_multi the-call two="
    assert wire.separate(commands[2].removeprefix("api uuid_setvar "), 3)[2] == "half ? a pair"
    assert commands[3] == "api uuid_setvar_multi the-call four=4;five=5"


@pytest.mark.parametrize("value", ["a;b", "a b", "a=b", "it's", "\\", "${x}", "^^x", '"', "a,b", "é", "a\n"])
def test_a_value_that_is_not_plain_has_a_command_of_its_own(line: Line, value: str) -> None:
    line.session.set_variables({"one": value})
    command = line.peer.expect("api uuid_setvar the-call one ")
    assert wire.separate(command.removeprefix("api uuid_setvar "), 3)[2] == value


def test_more_variables_than_one_command_takes_are_two(line: Line) -> None:
    line.session.forget_variables(f"v{number}" for number in range(70))
    first, second = (line.peer.expect("api uuid_setvar_multi the-call ") for _ in range(2))
    assert first.count(";") == 63, "FreeSWITCH puts what is behind the 64th into its value"
    assert second.endswith(" v64=;v65=;v66=;v67=;v68=;v69=")


def test_commands_of_a_moment_go_out_together_when_their_greenlet_waits(line: Line) -> None:
    line.session.post("one")
    line.session.set_variables({"a": "1"})
    line.session.set_variables({"b": "2"})
    line.session.post("two")
    assert not line.peer.has_data()
    gevent.sleep(0)
    commands = b"one\n\napi uuid_setvar_multi the-call a=1;b=2\n\ntwo\n\n"
    assert line.peer.sock.recv(65536) == commands


def test_flushed_is_on_the_wire_at_once(line: Line) -> None:
    line.session.set_variables({"a": "1"})
    line.session.flush()
    assert line.peer.has_data()
    assert line.peer.command() == "api uuid_setvar_multi the-call a=1"


def test_what_was_posted_before_the_stop_is_sent(line: Line) -> None:
    line.session.post("the last words")
    line.session.stop()
    assert line.peer.command() == "the last words"
    assert line.peer.ended()


def test_a_freeswitch_that_reads_late_gets_everything_in_order(line: Line) -> None:
    line.session.post("x" * 20_000_000)
    gevent.sleep(0)
    line.session.set_variables({"a": "1"})
    line.session.post("the next")
    flushed = later(line.session.flush)
    assert not flushed.ready()
    left = 20_000_000 + len("\n\n")
    while left:
        left -= len(line.peer.sock.recv(min(left, 1_000_000)))
    assert [line.peer.command() for _ in range(2)] == ["api uuid_setvar_multi the-call a=1", "the next"]
    flushed.get()


def test_a_freeswitch_that_does_not_read_is_not_told_for_ever(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "MAX_UNSENT", 10)
    line.session.post("x" * 20_000_000)
    for _ in range(20):
        gevent.sleep(0)
        with contextlib.suppress(ConnectionLost):
            line.session.post("more")
    with pytest.raises(ConnectionLost, match="has not read 11 commands"):
        line.session.raise_if_disconnected()


def test_respond_waits_for_the_end_of_the_call(line: Line) -> None:
    greenlet = later(lambda: line.session.respond(503, "Service Unavailable", 30))
    for expected in [("set", "sip_rh_Retry-After=30"), ("respond", "503 Service Unavailable")]:
        message = fields(line.peer.expect("sendmsg"))
        assert (message["execute-app-name"], message["execute-app-arg"]) == expected
        assert not greenlet.ready()
        line.peer.send(wire.reply())
    line.peer.send(HUNG_UP)
    greenlet.get()


@pytest.mark.parametrize("evil", ["x\nexit", "x\r\n\r\nexit", "x\0"])
def test_line_ends_are_refused_and_nothing_is_sent(line: Line, evil: str) -> None:
    for call in (
        lambda: line.session.api(evil),
        lambda: line.session.execute("playback", evil),
        lambda: line.session.call_command("set", evil, block=True),
        lambda: line.session.subscribe(evil),
    ):
        with pytest.raises(UnsafeArgument):
            call()
    line.session.post("the next command")
    assert line.peer.command() == "the next command"


# -- applications -----------------------------------------------------------------------------------------


def test_an_application_is_waited_for_by_its_own_uuid(line: Line) -> None:
    first, first_uuid = execute(line, "playback", "/tmp/a.r8")
    second, second_uuid = execute(line, "playback", "/tmp/b.r8")
    line.peer.send(completed("of-another-controller") + completed(second_uuid, Which="second"))
    assert second.wait(2).headers["Which"] == "second"
    assert (first.done, second.done) == (False, True)
    line.peer.send(completed(first_uuid, Which="first"))
    assert first.wait(2).headers["Which"] == "first"


def test_an_answer_does_not_wait_for_a_parked_channels_next_look(line: Line) -> None:
    greenlet = later(lambda: line.session.answer())
    assert line.peer.command() == "api uuid_answer the-call"
    event_uuid = fields(line.peer.expect("sendmsg"))["Event-UUID"]
    # Whatever becomes of the one, the other tells: it cannot hang up, nor be taken for an answer.
    line.peer.send(wire.api_response("-ERROR\n") + wire.reply() + wire.event({"Event-Name": "DTMF"}))
    assert line.session.next_event(2).name == "DTMF"  # both replies have been read
    assert not greenlet.ready()
    line.peer.send(completed(event_uuid, **{"Answer-State": "answered"}))
    assert greenlet.get().headers["Answer-State"] == "answered"


def test_a_completion_may_come_before_the_reply(line: Line) -> None:
    greenlet = later(lambda: line.session.execute("answer").wait(2))
    event_uuid = fields(line.peer.expect("sendmsg"))["Event-UUID"]
    line.peer.send(completed(event_uuid, **{"Answer-State": "answered"}) + wire.reply())
    assert greenlet.get().headers["Answer-State"] == "answered"


def test_an_application_that_was_refused_is_not_waited_for(line: Line) -> None:
    greenlet = later(lambda: line.session.execute("nonsense").wait(5))
    line.peer.expect("sendmsg")
    line.peer.send(wire.reply("-ERR invalid application"))
    with pytest.raises(CommandFailed):
        greenlet.get()
    assert not line.session._executions


# -- time-outs --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_wait_has_an_end(impatient: Line) -> None:
    session = impatient.session
    session.session_data = {"Unique-ID": "the-call"}
    for wait in (
        session.connect,
        lambda: session.send("status"),
        lambda: session.api("status"),
        lambda: session.execute("playback", "x").wait(0.05),
        session.answer,
        lambda: session.call_command("playback", "x", block=True),
        session.settle,
        lambda: session.respond(503, "x"),
    ):
        with pytest.raises(CommandTimeout):
            wait()
    assert session.next_event(0.05) is None
    assert not session._executions, "what was given up leaves nothing behind"


def test_an_application_that_never_completes(impatient: Line) -> None:
    execution, _ = execute(impatient, "playback", "x")
    with pytest.raises(CommandTimeout, match="playback did not complete within"):
        execution.wait(0.05)


def test_a_reply_that_comes_too_late_is_not_the_next_commands(impatient: Line) -> None:
    with pytest.raises(CommandTimeout):
        impatient.session.api("slow")
    greenlet = later(lambda: impatient.session.api("quick"))
    impatient.peer.send(wire.api_response("late") + wire.api_response("in time"))
    assert greenlet.get() == "in time"


def test_a_caller_of_ours_that_has_a_timeout_of_its_own_gets_that(line: Line) -> None:
    with pytest.raises(gevent.Timeout) as caught, gevent.Timeout(0.05) as mine:
        line.session.api("status")
    assert caught.value is mine


def test_a_freeswitch_that_does_not_read_is_given_up(impatient: Line) -> None:
    with pytest.raises(OutboundSessionHasGoneAway):
        impatient.session.send("x" * 50_000_000)
    with pytest.raises(ConnectionLost, match="cannot send"):
        impatient.session.raise_if_disconnected()


# -- ends -------------------------------------------------------------------------------------------------


def waits(line: Line) -> list[gevent.Greenlet]:
    """One greenlet in each kind of wait."""
    execution, _ = execute(line, "playback", "x")
    found = [
        later(lambda: line.session.api("pending")),
        later(lambda: line.session.send("pending too")),
        later(lambda: execution.wait(10)),
        later(lambda: line.session.next_event(10)),
    ]
    line.peer.command()
    line.peer.command()
    return found


@pytest.mark.parametrize("how", ["close", "reset"])
def test_everyone_who_waits_is_told_at_once_when_the_socket_dies(line: Line, how: str) -> None:
    greenlets = waits(line)
    getattr(line.peer, how)()
    for greenlet in greenlets:
        with pytest.raises(ConnectionLost):
            greenlet.get(timeout=1)
    for command in (lambda: line.session.send("x"), line.session.connect, line.session.answer):
        with pytest.raises(ConnectionLost):
            command()
    assert line.session.gone.is_set()
    assert line.session.finished.is_set()


@pytest.mark.parametrize("signal", [HUNG_UP, wire.linger_notice(), HUNG_UP_COMPLETE])
def test_everyone_who_waits_is_told_at_once_when_the_caller_hangs_up(line: Line, signal: bytes) -> None:
    greenlets = waits(line)
    line.peer.send(signal)
    for greenlet in greenlets:
        with pytest.raises(CallerHungUp):
            greenlet.get(timeout=1)
    for command in (lambda: line.session.send("x"), line.session.uuid_break, line.session.answer):
        with pytest.raises(CallerHungUp):
            command()


def test_the_last_events_come_after_the_linger_notice(line: Line) -> None:
    line.peer.send(wire.linger_notice("the-call") + HUNG_UP_COMPLETE)
    assert line.session.finished.wait(2)
    assert line.session.hangup["variable_sip_hangup_disposition"] == "recv_bye"


def test_a_reply_after_the_hang_up_disturbs_nobody(line: Line) -> None:
    greenlet = later(lambda: line.session.api("pending"))
    line.peer.command()
    line.peer.send(HUNG_UP + wire.api_response("too late") + HUNG_UP_COMPLETE)
    with pytest.raises(CallerHungUp):
        greenlet.get(timeout=1)
    assert line.session.finished.wait(2)
    assert line.session.hangup


def test_events_that_came_before_the_hang_up_are_still_there(line: Line) -> None:
    line.peer.send(wire.event({"Event-Name": "DTMF"}) + HUNG_UP)
    assert line.session.gone.wait(2)
    assert line.session.next_event(1).name == "DTMF"
    for _ in range(3):
        with pytest.raises(CallerHungUp):
            line.session.next_event(1)


def test_the_first_reason_stays(line: Line) -> None:
    line.peer.send(HUNG_UP)
    assert line.session.gone.wait(2)
    line.peer.close()
    assert line.session.finished.wait(2)
    with pytest.raises(CallerHungUp):
        line.session.raise_if_disconnected()


def test_a_rude_rejection_is_a_lost_connection() -> None:
    with bounded():
        line = Line()
        greenlet = later(line.session.connect)
        line.peer.expect("connect")
        line.peer.send(b"Content-Type: text/rude-rejection\nContent-Length: 24\n\nAccess Denied, go away.\n")
        with pytest.raises(ConnectionLost, match="ACL"):
            greenlet.get(timeout=1)
        line.session.stop()


@pytest.mark.timed
def test_stop_is_quick_and_may_come_twice(line: Line) -> None:
    greenlets = waits(line)
    began = time.monotonic()
    line.session.stop()
    line.session.stop()
    assert time.monotonic() - began < 0.2
    for greenlet in greenlets:
        with pytest.raises(ConnectionLost, match="closed by eslbot"):
            greenlet.get(timeout=1)
    assert line.peer.ended()
    assert not line.session._readable.active
    assert line.session.finished.is_set()


def test_stop_after_freeswitch_has_closed(line: Line) -> None:
    line.peer.reset()
    assert line.session.gone.wait(2)
    line.session.stop()


@pytest.mark.slow
def test_a_stopped_session_leaves_nothing_behind() -> None:
    def sessions() -> int:
        gc.collect()
        return sum(isinstance(thing, Session) for thing in gc.get_objects())

    before = sessions()
    for _ in range(5):
        line = Line()
        line.connect()
        waits(line)
        line.session.stop()
        line.peer.close()
    del line
    with bounded():
        while sessions() > before:
            gevent.sleep(0.01)


# -- bounds -----------------------------------------------------------------------------------------------


def pour(sock: socket.socket, chunk: bytes, total: int) -> None:
    try:
        for _ in range(total // len(chunk)):
            sock.sendall(chunk)
    except OSError:
        pass  # the other side has had enough


@pytest.mark.parametrize(
    ("beginning", "bound"),
    [
        (b"A: ", MAX_HEADER_BYTES),
        (b"Content-Type: text/event-plain\nContent-Length: 9999999999\n\n", MAX_BODY_BYTES),
        (b"Content-Type: api/response\nContent-Length: 1073741825\n\n", MAX_BODY_BYTES),
    ],
)
def test_a_frame_without_bounds_ends_the_session(line: Line, beginning: bytes, bound: int) -> None:
    greenlet = later(lambda: line.session.api("pending"))
    line.peer.command()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    line.peer.send(beginning)
    pourer = gevent.spawn(pour, line.peer.sock, b"x" * 65536, 256 * 1024 * 1024)
    with pytest.raises(ConnectionLost, match="ProtocolError"):
        greenlet.get(timeout=10)
    line.session.stop()
    pourer.join(5)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < (bound + 16 * 1024 * 1024) / 1024


def test_a_long_event_costs_no_memory_and_the_session_goes_on(line: Line) -> None:
    size = 64 * 1024 * 1024
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    inner = b"Event-Name: CUSTOM\nEvent-Subclass: mod_audio_stream::json\nContent-Length: %d\n\n" % size
    line.peer.send(b"Content-Type: text/event-plain\nContent-Length: %d\n\n" % (len(inner) + size) + inner)
    gevent.spawn(pour, line.peer.sock, b"x" * 65536, size).get(timeout=10)
    event = line.session.next_event(5)
    assert event is not None
    assert (event.name, event.oversized) == ("mod_audio_stream::json", size)
    line.peer.send(wire.event({"Event-Name": "DTMF"}))
    assert line.session.next_event(5).name == "DTMF"
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 16 * 1024


def test_a_long_reply_still_ends_its_command(line: Line) -> None:
    answers = [later(lambda: line.session.api("long")), later(lambda: line.session.api("short"))]
    line.peer.command(), line.peer.command()
    size = MAX_BODY_BYTES + 1
    line.peer.send(b"Content-Type: api/response\nContent-Length: %d\n\n" % size)
    line.peer.send(b"x" * size + wire.api_response("+OK short"))
    with pytest.raises(ProtocolError, match="too long"):
        answers[0].get(timeout=5)
    assert answers[1].get(timeout=5) == "+OK short"


def test_an_event_that_lies_about_its_length_ends_the_session(line: Line) -> None:
    inner = b"Event-Name: X\nContent-Length: 99\n\n"
    line.peer.send(b"Content-Type: text/event-plain\nContent-Length: %d\n\n" % len(inner) + inner)
    assert line.session.gone.wait(2)
    with pytest.raises(ConnectionLost, match="ProtocolError"):
        line.session.raise_if_disconnected()


def test_a_flood_of_events_is_counted_and_the_rest_goes_on(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "MAX_INBOX", 10)
    execution, event_uuid = execute(line, "playback", "x")
    line.peer.send(wire.event({"Event-Name": "DTMF"}) * 25 + completed(event_uuid) + HUNG_UP)
    assert line.session.gone.wait(2)
    assert execution.done
    assert line.session.lost_events == 15
    for _ in range(10):
        assert line.session.next_event(1).name == "DTMF"
    with pytest.raises(CallerHungUp):
        line.session.next_event(1)


def test_what_ends_a_part_is_kept_however_many_wait(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MAX_INBOX", 10)
    monkeypatch.setattr(connection, "MAX_KEPT", 3)
    line.session.keeps = lambda event: event.name == "PLAYBACK_START"
    flood, kept = wire.event({"Event-Name": "DTMF"}) * 25, wire.event({"Event-Name": "PLAYBACK_START"})
    line.peer.send(flood + kept + flood + 4 * kept + HUNG_UP)
    assert line.session.gone.wait(2)
    names = [line.session.next_event(1).name for _ in range(13)]
    assert names == ["DTMF"] * 10 + ["PLAYBACK_START"] * 3, "those that are kept have a bound, too"
    with pytest.raises(CallerHungUp):
        line.session.next_event(1)
    assert line.session.lost_events == 40 + 2


def test_the_bytes_that_wait_have_a_bound(line: Line) -> None:
    text = wire.event({"Event-Name": "DTMF"}, b"x" * 1024 * 1024)
    for _ in range(12):
        line.peer.send(text)
    line.peer.send(HUNG_UP)
    assert line.session.gone.wait(2)
    assert line.session.lost_events == 12 - 7
    for _ in range(7):
        assert line.session.next_event(1).name == "DTMF"
    with pytest.raises(CallerHungUp):
        line.session.next_event(1)


def test_a_story_with_much_to_do_lets_the_others_have_a_turn(line: Line) -> None:
    line.peer.send(wire.event({"Event-Name": "DTMF"}) * 200)
    assert line.session.next_event(1)
    gevent.sleep(0.05)  # it is all there
    turns = []
    other = gevent.spawn(lambda: [turns.append(time.monotonic()) or gevent.sleep(0) for _ in range(1000)])
    began = time.monotonic()
    for _ in range(60):
        assert line.session.next_event(1)
        until = time.monotonic() + 0.002
        while time.monotonic() < until:
            pass  # work that does not wait
    assert len([turn for turn in turns if turn >= began]) >= 5
    other.kill()


def test_a_job_is_none_of_the_connections_business(line: Line) -> None:
    greenlet = later(lambda: line.session.background("uuid_audio_stream the-call stop")(1))
    job = line.peer.expect("filter Job-UUID ").removeprefix("filter Job-UUID ")
    assert len(job) == 36
    # Not the event socket's own bgapi: FreeSWITCH would not let go of the connection before the job ends.
    assert line.peer.expect("api") == f"api bgapi uuid:{job} uuid_audio_stream the-call stop"
    line.peer.send(wire.reply("+OK filter added.") + wire.api_response(f"+OK Job-UUID: {job}\n"))
    line.peer.send(wire.event({"Event-Name": "BACKGROUND_JOB", "Job-UUID": "another's"}, b"-ERR\n"))
    line.peer.send(wire.event({"Event-Name": "BACKGROUND_JOB", "Job-UUID": job}, b"+OK Success\n"))
    assert greenlet.get(timeout=2) == "+OK Success\n"


@pytest.mark.timed
def test_a_job_that_does_not_end_is_waited_for_so_long(line: Line) -> None:
    began = time.monotonic()
    assert line.session.background("uuid_audio_stream the-call stop")(0.1) is None
    assert 0.1 <= time.monotonic() - began < 1


def test_a_job_that_is_refused_or_whose_call_ends_is_not_waited_for(line: Line) -> None:
    refused = later(lambda: line.session.background("anything")(5))
    line.peer.expect("filter"), line.peer.expect("api")
    line.peer.send(wire.reply() + wire.api_response("-ERR bgapi Command not found!\n"))
    with pytest.raises(CommandFailed, match="not found"):
        refused.get(timeout=2)
    pending = later(lambda: line.session.background("anything")(5))
    line.peer.expect("filter")
    line.peer.send(HUNG_UP)
    with pytest.raises(CallerHungUp):
        pending.get(timeout=2)


def test_what_the_hang_up_says_is_there_until_its_completion(line: Line) -> None:
    line.peer.send(HUNG_UP)
    assert line.session.gone.wait(2)
    assert line.session.hangup["Hangup-Cause"] == "NORMAL_CLEARING"
    assert not line.session.finished.is_set()
    line.peer.send(HUNG_UP_COMPLETE + HUNG_UP)
    assert line.session.finished.wait(2)
    gevent.sleep(0.01)
    assert line.session.hangup["variable_sip_hangup_disposition"] == "recv_bye"
