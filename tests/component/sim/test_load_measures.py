"""The load test counts what was, decides when a ramp ends, and says what broke."""

from __future__ import annotations

import json
import math
import os
import socket
import struct
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from eslbot.cli.loadtest import loadtest
from eslbot.sim.loadtest import profiles
from eslbot.sim.loadtest.calls import Call, Post, early_failure, mean_up, most_at_once
from eslbot.sim.loadtest.drive import Result
from eslbot.sim.loadtest.figures import (
    Figures,
    Spread,
    StepResult,
    Symptoms,
    causes,
    disturbance,
    figures,
    generator_limits,
)
from eslbot.sim.loadtest.machine import Machine
from eslbot.sim.loadtest.profiles import Limits, Unusable
from eslbot.sim.loadtest.report import Report, limit
from eslbot.sim.loadtest.sites import complaints, json_lines, rtp_ports
from eslbot.sim.loadtest.usage import Sample, Usage, Used, between
from eslbot.sim.pbx import Voices, VoicesError
from eslbot.sim.pbx.trace import Dialog
from eslbot.sim.pbx.voices import Flow, Voice

WORKSPACE = "2b37ba17-7b20-4b3e-b138-1161e351d5c5"

# -- calls -------------------------------------------------------------------------------------------------


def dialog(**changes: Any) -> Dialog:
    told: dict[str, Any] = {
        "invited_at": 100.0,
        "status": 200,
        "reason": "OK",
        "final_at": 100.25,
        "bye_at": 110.0,
        "bye_status": 200,
        "ended_by": "pbx",
        "ended_at": 110.0,
    }
    return Dialog("1-1@127.0.0.1", **{**told, **changes})


def voice(**changes: Any) -> Voice:
    told: dict[str, Any] = {"sent": 500, "left_out": 0, "latest": 0.001, "last_sent": [], "received": 490}
    return Voice(**{**told, "lost": 0, "repeated": 0, "longest": 0.021, **changes})


POST = Post(109.0, 109.5)


def call(**changes: Any) -> Call:
    told: dict[str, Any] = {"crt": "crt-1", "step": 0, "dialog": dialog(), "posts": [POST]}
    return Call(**{**told, "voice": voice(), "bot_ended_at": 108.0, "ended": {"packets_in": 496}, **changes})


REFUSED = dialog(status=503, reason="Service Unavailable", bye_at=None, ended_by=None)


@pytest.mark.parametrize(
    ("seen", "cause"),
    [
        (call(), None),
        (call(dialog=None), "never begun by SIPp"),
        (call(dialog=REFUSED), "503 Service Unavailable"),
        (call(dialog=REFUSED, refused={"why": "worker_full"}), "503 Service Unavailable (worker_full)"),
        (call(dialog=dialog(status=None, final_at=None)), "no response to the INVITE"),
        (call(dialog=dialog(status=487, reason="x", cancelled_at=105.0)), "no answer in time (CANCEL)"),
        (call(dialog=dialog(status=None, final_at=None, cancelled_at=9.0)), "no answer in time (CANCEL)"),
        (call(dialog=dialog(ended_by="switch", bye_status=None)), "unexpected BYE from the switch"),
        (call(posts=[]), "no hand-off"),
        (call(posts=[], hand_off=False), None),
        (call(posts=[POST, POST]), "handed off more than once"),
        (call(dialog=dialog(ended_by=None, bye_at=None)), "still up when the time was over"),
        (call(dialog=dialog(bye_status=481)), "BYE answered with 481"),
        (call(dialog=dialog(bye_status=None)), "BYE not answered"),
        (call(voice=voice(received=0)), "no RTP came back"),
        (call(voice=None), None),
    ],
)
def test_a_lost_call_has_one_cause(seen: Call, cause: str | None) -> None:
    assert seen.failure() == cause


def test_what_is_known_of_a_call_while_it_is_up() -> None:
    up = dialog(bye_at=None, bye_status=None, ended_by=None, ended_at=None)
    assert early_failure(up) is None
    assert early_failure(dialog(status=None, final_at=None)) is None
    assert early_failure(REFUSED) == "503 Service Unavailable"
    assert early_failure(dialog(ended_by="switch")) == "unexpected BYE from the switch"


def test_calls_at_once() -> None:
    def up(begin: float, end: float | None) -> Dialog:
        return dialog(final_at=begin, ended_at=end)

    dialogs = [up(0, 10), up(5, 15), up(10, 20), up(12, None), REFUSED]
    assert most_at_once(dialogs) == 3
    assert mean_up(dialogs, 0, 10) == pytest.approx(1.5)
    assert mean_up(dialogs, 10, 20) == pytest.approx((5 + 10 + 8) / 10)
    assert most_at_once([]) == 0 and mean_up(dialogs, 5, 5) == 0.0


# -- figures -----------------------------------------------------------------------------------------------


def test_percentiles_are_values_that_were_seen() -> None:
    spread = Spread.of([number / 100 for number in range(1, 101)])
    assert (spread.count, spread.p50, spread.p90, spread.p99, spread.most) == (100, 0.5, 0.9, 0.99, 1.0)
    assert Spread.of([0.3]) == Spread(1, 0.3, 0.3, 0.3, 0.3)
    assert math.isnan(Spread.of([]).p99)


def test_figures_of_calls() -> None:
    late = voice(sent=500, last_sent=[109.98, 110.01, 110.03], lost=10, received=480, left_out=3, latest=0.4)
    told = figures([call(), call(voice=late), call(dialog=REFUSED, posts=[], voice=None, ended={})])
    assert (told.begun, told.answered, told.handed_off, told.completed, told.failed) == (3, 2, 2, 2, 1)
    assert told.failures == Counter({"503 Service Unavailable": 1})
    assert (told.setup.count, told.setup.p50) == (2, 0.25)
    assert (told.to_post.p50, told.to_bye.p50) == (1.0, 1.0)
    assert (told.to_caller.sent, told.to_caller.lost) == (490 + 480 + 10, 10)
    assert told.to_caller.percent == pytest.approx(100 * 10 / 980)
    # Two of the second call's packets left behind its BYE: the switch could not count them.
    assert (told.to_switch.calls, told.to_switch.sent, told.to_switch.lost) == (2, 998, 6)
    assert (told.unread.p50, told.unread.most) == (2, 4)
    assert (told.left_out, told.voiced, told.latest) == (3, 1003, 0.4)
    assert told.heard is None


def test_figures_of_nothing_are_no_zeros() -> None:
    told = figures([call(voice=None, ended={})])
    assert math.isnan(told.to_caller.percent) and math.isnan(told.to_switch.percent)
    assert told.gap.count == 0


def step(
    name: str = "5/s", broken: str | None = None, used: Used | None = None, **changes: Any
) -> StepResult:
    calls = changes.pop("calls", [call()] * 10)
    told: dict[str, Any] = {"planned": len(calls), "at_once": 7, "mean_up": 5.0}
    return StepResult(name=name, figures=figures(calls), used=used, broken=broken, **{**told, **changes})


def used(machine: float = 1.0, **busiest: float) -> Used:
    return Used(cores=busiest, busiest=busiest, memory={}, machine=machine, of=2)


def test_the_generator_says_when_it_was_the_limit() -> None:
    assert generator_limits(step(used=used(generator=0.5)), Symptoms()) == []
    assert generator_limits(step(used=used(generator=0.95)), Symptoms()) == [
        "a process of the generator used 95% of a core"
    ]
    assert generator_limits(step(planned=11), Symptoms()) == ["SIPp began 10 of 11 calls"]
    assert generator_limits(step(), Symptoms(dropped=4)) == ["4 RTP packets found the callers' buffer full"]
    late = [call(voice=voice(left_out=100))] * 10
    assert generator_limits(step(calls=late), Symptoms()) == [
        "the callers left out 1000 of 6000 frames, being late"
    ]


def test_what_broke_is_told_by_its_cause() -> None:
    refused = [call(dialog=REFUSED, posts=[])] * 4 + [call()] * 6
    told = causes(step(calls=refused), Symptoms(log_read=True, refusals=Counter(worker_full=4)))
    assert told == [
        "4 × 503 Service Unavailable",
        "server.max_calls was reached: more workers, or a higher one",
    ]
    own = causes(step(calls=refused), Symptoms(log_read=True))
    assert own[1].startswith("503 of FreeSWITCH's own")
    assert causes(step(calls=refused), Symptoms()) == ["4 × 503 Service Unavailable"], "the log was not read"
    ports = Symptoms(complaints=Counter({"No audio RTP ports available!": 9}))
    assert "rtp_ports is exhausted" in causes(step(), ports)[0]
    none_left = dialog(status=502, reason="Bad Gateway", bye_at=None, ended_by=None)
    assert "rtp_ports is exhausted" in causes(step(calls=[call(dialog=none_left)]), Symptoms())[1]
    busy = used(1.97, freeswitch=1.4, eslbot=0.4)
    assert causes(step(used=busy), Symptoms()) == [
        "the machine's 2 cores were 98% busy (cores: freeswitch 1.40, eslbot 0.40)"
    ]
    assert causes(step(used=used(eslbot=0.97)), Symptoms()) == [
        "an eslbot worker used 97% of a core: more workers"
    ]
    assert causes(step(), Symptoms()) == []


def test_what_others_used_is_told() -> None:
    assert disturbance(step(used=used(1.9, freeswitch=1.0, eslbot=0.5))) == (
        "others on this machine used 0.40 cores meanwhile"
    )
    assert disturbance(step(used=used(1.6, freeswitch=1.0, eslbot=0.5))) is None
    assert disturbance(step()) is None


def test_complaints_are_told_once_for_all_calls() -> None:
    uuid = "ea27fe88-5db3-4f15-9aee-4de44c4d92d5"
    line = "2026-11-23 04:32:04.1 98.2% [{}] switch_rtp.c:2810 {}\n"
    log = line.format("CRIT", f"{uuid} No audio RTP ports available!") * 2
    log += line.format("ERR", "sofia/ameyo/1@x port 12345 is gone") + line.format("NOTICE", "Hangup")
    assert complaints(log) == Counter({"… No audio RTP ports available!": 2, "… port … is gone": 1})


# -- plans -------------------------------------------------------------------------------------------------


def test_a_ramp_goes_up_in_even_steps() -> None:
    plan = profiles.ramp(2, 20, 4, 10, 5)
    assert [(one.rate, one.calls, one.seconds) for one in plan.steps] == [
        (2, 20, 10),
        (8, 80, 10),
        (14, 140, 10),
        (20, 200, 10),
    ]
    assert [one.rate for one in profiles.ramp(3, 3, 1, 10, 5).steps] == [3]


def test_held_calls_are_all_up_for_the_time() -> None:
    plan = profiles.hold(50, 5, 30)
    assert (plan.call_seconds, plan.at_once, plan.steps[0].seconds) == (40, 50, 40)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: profiles.ramp(5, 2, 3, 10, 5), "--to 2 is below --from 5"),
        (lambda: profiles.ramp(5, 5, 3, 10, 5), "that is `rate`"),
        (lambda: profiles.rate(0.1, 1, 5), "are no call"),
        (lambda: profiles.rate(1000, 1, 5), "0.1 to 200"),
        (lambda: profiles.rate(-3, 1, 5), "are no call"),
        (lambda: profiles.rate(200, 3600, 5), "more than the 20000"),
    ],
)
def test_plans_that_cannot_be_made(make: Any, words: str) -> None:
    with pytest.raises(Unusable, match=words):
        make()


@pytest.mark.parametrize(
    ("begun", "failed", "p99", "words"),
    [
        (100, 1, 0.9, None),
        (100, 2, 0.1, "2.0 % of the calls failed, more than 1 %"),
        (100, 0, 1.2, "1200 ms at p99, more than 1000 ms"),
        (100, 100, None, "100.0 %"),
        (0, 0, None, "no call was begun"),
    ],
)
def test_a_ramp_ends_at_its_limits(begun: int, failed: int, p99: float | None, words: str | None) -> None:
    broken = Limits(1.0, 1.0, 2.0).broken(begun, failed, p99)
    assert broken is None if words is None else words in str(broken)


def test_a_late_hand_off_makes_a_step_no_good_one() -> None:
    limits = Limits(1.0, 1.0, 2.0)
    assert limits.broken(10, 0, 0.1, 2.0) is None and limits.broken(10, 0, 0.1, None) is None
    assert limits.broken(10, 0, 0.1, 2.5) == "bot's end → POST took 2500 ms at p99, more than 2000 ms"


def test_ports_for_all_calls() -> None:
    assert rtp_ports(50, (20000, 20599)) == (20000, 20599)
    first, last = rtp_ports(1000, (20000, 20599))
    assert last - first + 1 >= 2000 and last < 32000


# -- telling -----------------------------------------------------------------------------------------------


def result(*steps: StepResult, profile: str = "ramp") -> Result:
    plan = profiles.ramp(2, 6, 3, 10, 5) if profile == "ramp" else profiles.rate(5, 10, 5)
    whole = figures([call()] * 20)
    return Result(plan, list(steps), whole, 7, None, Symptoms(), None, [call()])


def test_the_last_good_step_is_the_one_before_the_first_broken() -> None:
    told = result(step("2/s"), step("4/s", broken="3 % failed"), step("6/s"))
    assert told.last_good is not None and told.last_good.name == "2/s"
    assert limit(told) == [
        "last good step: 2/s, with 7 calls up at most",
        "first to break a limit: 4/s: 3 % failed",
        "4/s: why cannot be told from here",
    ]
    assert limit(result(step("2/s"), step("4/s")))[1] == "no limit was reached"
    assert limit(result(step("2/s", broken="x")))[0] == "no step was good"
    assert limit(result(step(), profile="rate")) == [
        "no call was lost: the limit, whatever it is, was not reached"
    ]


def test_the_report_for_people_and_for_programs() -> None:
    refused = [call(dialog=REFUSED, posts=[], voice=None)] * 2 + [call()] * 2
    busy = used(1.0, freeswitch=0.5, eslbot=0.25, generator=0.1)
    told = result(step("2/s", used=busy), step("4/s", calls=refused, broken="50 %", used=busy))
    told.whole = figures(refused)
    machine = Machine(2, "a CPU", "Linux", "3.11", 0.1)
    report = Report("today", "eslbot loadtest", machine, "1", "a site", ["a detail"], told, 3.0)
    text = report.markdown()
    assert report.lost == 2
    for words in ("| 503 Service Unavailable | 2 ", "a detail", "250 ms / 250 ms", "10.00 %", "0.800 %"):
        assert words in text, text
    assert {len(line.split("|")) for line in text.splitlines() if line.startswith("| 4/s")} == {14, 12}
    document = json.loads(report.json())
    assert document["whole"]["failures"] == {"503 Service Unavailable": 2}
    assert document["steps"][1]["broken"] == "50 %" and document["lost"] == 2
    assert document["whole"]["to_post"]["p50"] == 1.0
    assert document["steps"][0]["used"]["cores"]["freeswitch"] == 0.5


def test_figures_that_are_not_there_are_null() -> None:
    told = result(step())
    told.whole = figures([call(dialog=REFUSED, posts=[], voice=None)])
    machine = Machine(2, "a CPU", "Linux", "3.11", 0.1)
    report = Report("today", "eslbot loadtest", machine, "1", "a site", [], told, 3.0)
    assert json.loads(report.json())["whole"]["to_post"]["p50"] is None
    assert isinstance(told.whole, Figures) and "nan" not in report.markdown()


# -- usage -------------------------------------------------------------------------------------------------


def test_processor_time_of_a_span() -> None:
    def sample(at: float, used: dict[int, float], busy: float) -> Sample:
        return Sample(at, {"eslbot": used}, {"eslbot": int(at)}, busy, at * 2)

    # A process that comes in the middle counts from its own beginning, one that has ended keeps what it had.
    samples = [sample(10, {1: 5.0}, 8), sample(11, {1: 5.5, 2: 0.25}, 9), sample(12, {1: 6.0, 2: 0.5}, 10)]
    told = between(samples, 10, 12.5)
    assert told is not None
    assert told.cores["eslbot"] == pytest.approx(0.75) and told.busiest["eslbot"] == pytest.approx(0.5)
    assert told.memory["eslbot"] == 12
    assert told.machine / told.of == pytest.approx(0.5)
    assert between(samples, 11.5, 13) is None


def test_usage_of_this_process() -> None:
    with Usage(lambda: {"generator": [os.getpid(), 2**22 + 1]}) as usage:
        begun = time.process_time()
        while time.process_time() - begun < 0.1 or len(usage.samples) < 2:
            sum(range(1000))
    told = usage.between(0, time.time())
    assert told is not None and told.cores["generator"] > 0 and told.memory["generator"] > 1_000_000


def test_a_log_is_read_from_where_it_was(tmp_path: Path) -> None:
    log = tmp_path / "eslbot.log"
    log.write_text('{"event": "old"}\n')
    offset = log.stat().st_size
    log.write_text('{"event": "old"}\n{"event": "new"}\nnot JSON\n{"event": "cut')
    assert json_lines(log, offset) == [{"event": "new"}]
    log.write_text('{"event": "rotated"}\n'[:-3])
    assert json_lines(log, 1000) == []
    log.write_text('{"event": "rotated"}\n')
    assert json_lines(log, 1000) == [{"event": "rotated"}]


# -- callers' RTP ------------------------------------------------------------------------------------------


def flow(*packets: tuple[int, int]) -> Flow:
    """Packets of (sequence number, source), 20 ms apart."""
    told = Flow()
    for number, (sequence, ssrc) in enumerate(packets):
        told.take(sequence, ssrc, 1000 + number * 0.02)
    return told


@pytest.mark.parametrize(
    ("packets", "received", "lost", "repeated"),
    [
        ([(n, 1) for n in range(65530, 65536)] + [(n, 1) for n in range(5)], 11, 0, 0),
        ([(1, 1), (2, 1), (5, 1)], 3, 2, 0),
        ([(1, 1), (3, 1), (2, 1), (4, 1)], 4, 0, 0),
        ([(1, 1), (2, 1), (2, 1), (3, 1)], 3, 0, 1),
        ([(1, 1), (2, 1), (900, 2), (901, 2)], 4, 0, 0),
    ],
)
def test_packets_are_counted_by_their_numbers(
    packets: list[tuple[int, int]], received: int, lost: int, repeated: int
) -> None:
    told = flow(*packets)
    assert (told.received, told.lost, told.repeated) == (received, lost, repeated)
    assert told.longest == pytest.approx(0.02)


def rtp(sequence: int, ssrc: int = 7) -> bytes:
    return struct.pack("!BBHII", 0x80, 0, sequence, sequence * 160, ssrc) + b"\xff" * 160


def test_callers_speak_and_count_each_for_himself() -> None:
    with Voices() as voices, udp() as first, udp() as second:
        at = ("127.0.0.1", voices.port)
        first.sendto(rtp(1), at)  # faster than the news of the answer
        voices.begin("one", first.getsockname(), 0)
        voices.begin("two", second.getsockname(), 8)
        voices.begin("deaf", ("127.0.0.1", 9), 18)  # G.729: nobody speaks it here
        kinds = {first.recv(2048)[1] & 0x7F, second.recv(2048)[1] & 0x7F}
        for number in (2, 4, 5):
            first.sendto(rtp(number), at)
        second.sendto(b"no RTP", at)
        second.sendto(rtp(1, 8), at)
        with udp() as stranger:
            stranger.sendto(rtp(1), at)
        voices.end("one")
        told = voices.report(["one", "two", "deaf", "never answered"])
        assert kinds == {0, 8}
        assert set(told.voices) == {"one", "two"} and told.strays == 1 and told.dropped == 0
        one, two = told.voices["one"], told.voices["two"]
        assert (one.received, one.lost, two.received, two.lost) == (4, 1, 1, 0)
        # Who was told to end speaks no more: the other is heard twice meanwhile.
        second.recv(2048), second.recv(2048)
        assert voices.report(["one"]).voices["one"].sent == one.sent
        # The switch gives the port to another call: its packets are not the old one's.
        first.sendto(rtp(60_000, 9), at)
        voices.begin("three", first.getsockname(), 0)
        again = voices.report(["one", "three"])
        assert (again.voices["one"].received, again.voices["three"].received) == (4, 1)
        assert again.voices["one"].longest == one.longest


def udp() -> socket.socket:
    endpoint = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    endpoint.bind(("127.0.0.1", 0))
    endpoint.settimeout(5)
    return endpoint


def test_packets_behind_the_bye_were_not_sent_to_the_switch() -> None:
    told = voice(sent=10, last_sent=[1.0, 1.02, 1.04])
    assert (told.sent_before(1.03), told.sent_before(None), told.sent_before(2.0)) == (9, 10, 10)


def test_callers_whose_process_is_gone_say_so() -> None:
    with Voices() as voices:
        assert voices.pid is not None and voices._process is not None
        voices._process.kill()
        voices._process.wait(5)
        voices.begin("one", ("127.0.0.1", 9), 0)  # the calls have to go on to their end
        with pytest.raises(VoicesError, match="exit code -9"):
            voices.report(["one"])


# -- the command -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["flood"], "'flood' is not one of"),
        (["rate", "--rate", "nan", "--seconds", "5"], "'nan' is no finite number"),
        (["hold", "--seconds", "nan"], "'nan' is no finite number"),
        (["rate", "--rate", "0"], "are no call"),
        (["rate", "--rate", "9999"], "SIPp is asked for"),
        (["rate", "--seconds", "-1"], "range"),
        (["rate", "--steps", "3"], "--steps means nothing to rate; it is for ramp"),
        (["hold", "--max-setup", "3"], "--max-setup means nothing to hold"),
        (["ramp", "--from", "9", "--to", "3"], "a ramp goes up"),
        (["hold", "--calls", "0"], "range"),
        (["--workspace", WORKSPACE], "--workspace needs --target"),
        (["--target", "127.0.0.1"], "not HOST:PORT"),
        (["--target", "127.0.0.1:0", "--workspace", WORKSPACE], "port 0"),
        (["--target", "127.0.0.1:5060"], "needs --workspace"),
        (["--target", "127.0.0.1:5060", "--workspace", "acme"], "'acme' is no UUID"),
        (["--target", "127.0.0.1:5060", "--workspace", WORKSPACE], "who ends the calls?"),
        (["--target", "127.0.0.1:5060", "--workspace", WORKSPACE, "--switch", "auto"], "for the laboratory"),
        (["--target", "127.0.0.1:5060", "--workspace", WORKSPACE, "--local-ip", "lo"], "no IPv4 address"),
        (
            [
                *("--target", "127.0.0.1:5060", "--workspace", WORKSPACE),
                *("--hang-up-after", "1", "--local-ip", "192.0.2.1"),
            ],
            "192.0.2.1 is no address of this machine",
        ),
        (["--target", "127.0.0.1:5060", "--workspace", WORKSPACE, "--ameyo-http"], "needs --ameyo-listen"),
        (["--target", "127.0.0.1:5060", "--watch", "cat=1"], "none of freeswitch=PID"),
        (["--target", "127.0.0.1:5060", "--watch", "eslbot=4194305"], "no process 4194305"),
        (["--json", "/nowhere/at/all.json"], "no directory /nowhere/at"),
    ],
)
def test_what_cannot_be_is_told_with_exit_code_2(options: list[str], words: str) -> None:
    told = CliRunner().invoke(loadtest, options)
    assert told.exit_code == 2, told.output
    assert words in " ".join(told.output.split()), told.output


AMEYO = ["--target", "127.0.0.1:5060", "--workspace", WORKSPACE, "--ameyo-listen", "127.0.0.1:8887"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "needs --tenant-host"),
        (["--tenant-host", "a.b"], "either --ameyo-http or --ameyo-certificate"),
        (["--tenant-host", "a.b", "--ameyo-http"], "token, by --token-file or $LOADTEST_AMEYO_TOKEN"),
    ],
)
def test_an_ameyo_needs_what_the_workspace_has(options: list[str], words: str) -> None:
    told = CliRunner().invoke(loadtest, [*AMEYO, *options], env={"LOADTEST_AMEYO_TOKEN": ""})
    assert told.exit_code == 2 and words in " ".join(told.output.split()), told.output


def test_an_ameyo_whose_port_is_taken(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("x\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        options = [*AMEYO[:4], "--ameyo-listen", listen, "--ameyo-http", "--tenant-host", "a.b"]
        told = CliRunner().invoke(loadtest, [*options, "--token-file", str(token)])
    assert told.exit_code == 1 and f"nobody can be Ameyo at {listen}" in told.output, told.output


def test_help() -> None:
    told = CliRunner().invoke(loadtest, ["--help"])
    assert told.exit_code == 0 and "--ameyo-listen" in told.output and "Exit code" in told.output
