"""The measures of ``benchmarks.speech`` on sound whose faults are known: all of them found, none invented."""

from __future__ import annotations

import json
import random
import time
from itertools import pairwise

import pytest

np = pytest.importorskip("numpy", reason="numpy is in the extra `benchmark`")

from websockets.sync.client import connect  # noqa: E402

from benchmarks.speech import rows, signals  # noqa: E402
from benchmarks.speech.bot import Bots, Talk  # noqa: E402
from benchmarks.speech.cases import around, soundness  # noqa: E402
from benchmarks.speech.hearing import Arrival, Downlink, Said, Uplink, Utterance, uplink  # noqa: E402
from benchmarks.speech.marks import CALLER, FOREIGN, LENGTH, LINE, Marks, Piece, codes_of  # noqa: E402
from benchmarks.speech.measures import is_loud, merge  # noqa: E402
from benchmarks.speech.measures import uplink as numbered_uplink  # noqa: E402
from benchmarks.speech.peer import Peer  # noqa: E402
from benchmarks.speech.signals import FRAME, NUMBERS  # noqa: E402
from eslbot.audio import g711  # noqa: E402
from eslbot.sim.loadtest.tables import percentile  # noqa: E402
from eslbot.sim.pbx.media import caller_frames  # noqa: E402
from eslbot.sim.rtp import RtpPacket  # noqa: E402

LAWS = ["PCMU", "PCMA"]
QUIET = b"\xff"
#: Where in the marks the bot says what is tested.
START = 123_457


# -- marks --------------------------------------------------------------------------------------------


def test_marked_sound_has_no_silence_and_survives_its_law() -> None:
    codes = LINE.codes(0, 160_000)
    assert not set(codes) & {0x7F, 0xFF}
    assert codes_of(LINE.linear(0, 160_000)) == codes
    assert codes_of(bytes(4)) == QUIET * 2
    assert codes_of(b"\xff\xff") == bytes([FOREIGN])  # FreeSWITCH's filler


def test_a_piece_is_found_wherever_one_looks_first() -> None:
    for near in (0, START, START + 3_000_000, LENGTH - 1):
        assert LINE.find(LINE.codes(START, 16), near) == START
    assert LINE.find(CALLER.codes(START, 16), START) is None


def test_pieces_over_the_end_of_the_marks_are_one() -> None:
    codes = LINE.codes(LENGTH - 300, 300) + LINE.codes(0, 500)
    assert LINE.pieces(codes) == [Piece(0, 800, LENGTH - 300)]


def test_pieces_of_silence_speech_and_something_else() -> None:
    other = CALLER.codes(77, 90)
    codes = QUIET * 160 + LINE.codes(START, 333) + other + LINE.codes(START + 333, 400) + b"\x7f" * 3
    found = LINE.pieces(codes)
    assert [piece.position for piece in found] == [None, START, -1, START + 333, None]
    # The foreign sound may begin or end with what would have been right by chance, one sample in 254.
    assert found[2].length == pytest.approx(90, abs=2)
    assert sum(piece.length for piece in found) == len(codes)
    assert [piece.at for piece in found[1:]] == [piece.end for piece in found[:-1]]


def test_a_tail_too_short_to_be_found_is_foreign() -> None:
    assert LINE.pieces(LINE.codes(START, 9), near=0) == [Piece(0, 9, -1)]
    assert LINE.pieces(LINE.codes(START, 9), near=START) == [Piece(0, 9, START)]


# -- what the caller hears ----------------------------------------------------------------------------


def packets(
    codes: bytes, begin: float = 100.0, size: int = 160, late: dict[int, float] | None = None
) -> list[Arrival]:
    """``codes`` in packets of ``size`` samples from ``begin`` on, in time, some ``late`` by seconds."""
    return [
        Arrival(
            begin + at / 8000 + (late or {}).get(number, 0.0),
            RtpPacket(0, number, at, 7, codes[at : at + size]),
        )
        for number, at in enumerate(range(0, len(codes), size))
    ]


def said(samples: int = 16_000, at: float = 100.4, **more: object) -> Said:
    return Said(START, samples, [(at, START)], **more)  # type: ignore[arg-type]


def heard(*parts: bytes, late: dict[int, float] | None = None, size: int = 160) -> Utterance:
    """What is heard of two seconds that are said 100 ms before the first of them comes, half a second in."""
    codes = QUIET * 4000 + b"".join(parts) + QUIET * 4000
    return Downlink(packets(codes, late=late, size=size)).utterance(said())


def speech(first: int = 0, last: int = 16_000) -> bytes:
    return LINE.codes(START + first, last - first)


def faults(utterance: Utterance) -> tuple[int, int, int, int, int]:
    return utterance.gaps, utterance.jumps, utterance.lost, utterance.repeated, utterance.foreign


def test_nothing_is_found_in_clean_speech() -> None:
    found = heard(speech())
    assert found.whole
    assert faults(found) == (0, 0, 0, 0, 0)
    assert (found.heard, found.speed) == (16_000, pytest.approx(1.0))
    assert found.first == pytest.approx(0.1)
    assert (found.began, found.over) == (pytest.approx(100.5), pytest.approx(102.48))


def test_speech_that_begins_within_a_packet_counts_from_that_packet() -> None:
    found = Downlink(packets(QUIET * 4100 + speech())).utterance(said())
    assert found.first == pytest.approx(0.1)
    assert found.whole


@pytest.mark.parametrize("size", [80, 240, 320, 480])
def test_packets_of_other_lengths(size: int) -> None:
    found = heard(speech(), size=size)
    assert found.whole
    assert found.speed == pytest.approx(1.0)


@pytest.mark.parametrize("at", [160, 8000, 8011])
@pytest.mark.parametrize("length", [1, 7, 160, 800])
def test_lost_samples_are_a_jump(at: int, length: int) -> None:
    found = heard(speech(0, at), speech(at + length))
    assert faults(found) == (0, 1, length, 0, 0)
    assert not found.whole


@pytest.mark.parametrize("length", [1, 7, 160, 800])
def test_repeated_samples_are_a_jump(length: int) -> None:
    found = heard(speech(0, 8000), speech(8000 - length))
    assert faults(found) == (0, 1, 0, length, 0)


def test_a_piece_said_again_much_later_is_repeated() -> None:
    # What a ring says that nobody has cleared.
    codes = QUIET * 800 + speech() + QUIET * 80_000 + speech(320, 480) + QUIET * 800
    found = Downlink(packets(codes)).utterance(said())
    assert found.repeated == 16_000 - 320


@pytest.mark.parametrize("length", [80, 160, 1001])
def test_an_inserted_silence_is_a_gap(length: int) -> None:
    found = heard(speech(0, 8011), QUIET * length, speech(8011))
    assert faults(found) == (1, 0, 0, 0, 0)
    assert found.holes == [length / 8000]


@pytest.mark.parametrize("length", [1, 40, 79])
def test_a_shorter_silence_is_a_jump(length: int) -> None:
    assert faults(heard(speech(0, 8011), QUIET * length, speech(8011))) == (0, 1, 0, 0, 0)


def test_a_silenced_piece_is_a_gap_and_lost() -> None:
    found = heard(speech(0, 8000), QUIET * 160, speech(8160))
    assert faults(found) == (1, 1, 160, 0, 0)


def test_another_sound_in_speech_is_foreign_and_a_jump() -> None:
    found = heard(speech(0, 8000), CALLER.codes(5, 160), speech(8160))
    assert (found.gaps, found.jumps) == (0, 1)
    assert found.foreign == pytest.approx(160, abs=2)
    assert found.lost == pytest.approx(160, abs=2)


def test_a_missing_beginning_and_a_missing_end() -> None:
    headless = heard(speech(160))
    assert headless.first is None
    assert (headless.jumps, headless.lost) == (1, 160)
    cut = heard(speech(0, 15_840))
    assert cut.first is not None
    assert (cut.jumps, cut.lost) == (0, 160)


def test_what_a_bot_took_back_is_not_lost() -> None:
    down = Downlink(packets(QUIET * 4000 + speech(0, 8000) + QUIET * 4000))
    found = down.utterance(said(cleared=101.45))
    assert found.whole
    assert found.over == pytest.approx(101.48)
    assert Downlink(packets(QUIET * 800)).utterance(said(cleared=100.5)).lost == 0


def test_nothing_heard_is_all_lost() -> None:
    found = Downlink(packets(QUIET * 8000)).utterance(said())
    assert (found.began, found.lost, found.heard) == (None, 16_000, 0)
    assert soundness([found])["unheard"] == 1
    assert Downlink([]).utterance(said()).lost == 16_000


def test_a_late_packet_is_a_gap_only_beyond_a_telephones_buffer() -> None:
    assert heard(speech(), late={60: 0.035, 61: 0.030}).whole
    assert heard(speech(), late={60: 0.049}).whole
    late = heard(speech(), late=dict.fromkeys(range(60, 1000), 0.060))  # from there on all is late: dry once
    assert late.dry == [pytest.approx(0.020)]
    assert not late.whole
    # Where nothing is said, it is nobody's gap.
    assert heard(speech(), late=dict.fromkeys(range(10), 0.3)).whole


def test_packets_at_half_speed_are_seen() -> None:
    codes = QUIET * 1600 + speech() + QUIET * 1600
    slow = [Arrival(100 + 2 * (a.at - 100), a.packet) for a in packets(codes)]
    found = Downlink(slow).utterance(said())
    assert found.speed == pytest.approx(0.5, abs=0.01)
    assert found.dry


def test_two_utterances_are_told_apart() -> None:
    second = Said(START + 16_000, 800, [(101.0, START + 16_000)])
    down = Downlink(packets(QUIET * 4000 + speech() + LINE.codes(START + 16_000, 800) + QUIET * 800))
    assert down.utterance(said()).whole
    found = down.utterance(second)
    assert found.whole
    assert found.heard == 800


def test_silences_of_an_utterance() -> None:
    codes = speech(0, 800) + QUIET * 160 + speech(800, 1600) + QUIET * 40 + speech(1600) + QUIET * 800
    assert Downlink(packets(codes)).silences(said()) == [160, 40]


def test_missing_sequence_numbers_are_the_measures_fault() -> None:
    rows = packets(QUIET * 160_000)
    assert Downlink(rows).lost == 0
    assert Downlink(rows[:100] + rows[103:]).lost == 3
    other = [
        Arrival(a.at + 60, RtpPacket(0, a.packet.sequence + 9, 0, 8, a.packet.payload)) for a in rows[:2]
    ]
    assert Downlink(rows + other).lost == 0  # another source counts for itself


# -- what the bot gets --------------------------------------------------------------------------------


def sent(count: int = 500, samples: int = 160, begin: float = 50.0, position: int = 7) -> list:
    return [(begin + n * samples / 8000, position + n * samples, samples) for n in range(count)]


def frames(packets_sent: list, late: float = 0.016) -> list[tuple[float, bytes]]:
    return [(at + late, CALLER.linear(position, samples)) for at, position, samples in packets_sent]


def test_the_callers_sound_as_it_should_be() -> None:
    found = uplink(frames(sent()), sent(), CALLER)
    assert (len(found.frames), found.lost, found.repeated, found.foreign) == (500, [], 0, 0)
    assert [late for _, late in found.frames] == pytest.approx([0.016] * 500)
    assert found.answers[17] == pytest.approx(50 + 17 * 0.02)


def test_frames_that_were_sent_before_the_bot_was_there_are_not_lost() -> None:
    assert uplink(frames(sent())[100:], sent(), CALLER).lost == []


def test_lost_frames_are_found_when_they_were_sent() -> None:
    some = frames(sent())
    found = uplink(some[:100] + some[102:], sent(), CALLER)
    assert found.lost == [(pytest.approx(52.0), 160), (pytest.approx(52.02), 160)]
    assert found.lost_within([(51.0, 52.01)]) == 160
    assert found.lost_within([(40.0, 41.0), (52.1, 60.0)]) == 0


def test_a_part_of_a_frame_that_is_lost() -> None:
    some = frames(sent())
    some[100] = (some[100][0], some[100][1][100:])
    assert uplink(some, sent(), CALLER).lost == [(pytest.approx(52.0), 50)]


def test_frames_that_come_again_and_fillers() -> None:
    some = frames(sent())
    filler = (some[100][0], b"\xff" * 320)
    silence = (some[100][0], bytes(320))
    found = uplink([*some[:100], some[99], filler, silence, *some[100:]], sent(), CALLER)
    assert (found.lost, found.repeated, found.foreign) == ([], 160, 160)
    assert len(found.frames) == 501


@pytest.mark.parametrize("samples", [80, 240, 320, 480])
def test_a_frame_is_as_late_as_the_packet_with_its_last_sample(samples: int) -> None:
    packets_sent = sent(200, samples)
    stream = b"".join(CALLER.linear(position, n) for _, position, n in packets_sent)
    cut = [(60.0 + n * 0.02, stream[at : at + 320]) for n, at in enumerate(range(0, len(stream) - 319, 320))]
    found = uplink(cut, packets_sent, CALLER)
    for number, (at, late) in enumerate(found.frames):
        packet = ((number + 1) * 160 - 1) // samples
        assert at == packets_sent[packet][0]
        assert at + late == pytest.approx(60.0 + number * 0.02)
    assert not found.lost


def test_an_uplink_over_the_end_of_the_marks() -> None:
    packets_sent = sent(position=LENGTH - 1600)
    found = uplink(frames(packets_sent), packets_sent, CALLER)
    assert (len(found.frames), found.lost, found.repeated) == (500, [], 0)


def test_latencies_of_a_silent_and_a_speaking_bot() -> None:
    found = Uplink(frames=[(1.0, 0.01), (2.0, 0.02), (3.0, 0.03)])
    assert found.latencies([(1.5, 2.5)], speaking=True) == [0.02]
    assert found.latencies([(1.5, 2.5)], speaking=False) == [0.01, 0.03]


def test_an_uplink_without_anything() -> None:
    assert uplink([], sent(), CALLER).frames == []
    assert uplink(frames(sent()), [], CALLER).frames == []
    assert uplink([(50.0, bytes(320))] * 10, sent(), CALLER) == Uplink()


# -- numbered frames: the benchmark of reliability ----------------------------------------------------


def at_bot(law: str, count: int, begin: int = 0) -> bytes:
    """Frames as the bot gets them: the caller's, coded and decoded."""
    coded = caller_frames(law, signals.numbered_frames())
    return b"".join(g711.decode(law, coded[(begin + n) % len(coded)]) for n in range(count))


def arrivals_of(l16: bytes, begin: float = 50.0) -> list[tuple[float, int]]:
    return [(begin + 0.02 * n, 320 * (n + 1)) for n in range(len(l16) // 320)]


@pytest.mark.parametrize("law", LAWS)
def test_every_frame_tells_its_number(law: str) -> None:
    assert len(caller_frames(law, signals.numbered_frames())) == NUMBERS
    assert list(signals.numbers_of(at_bot(law, NUMBERS))) == list(range(NUMBERS))


@pytest.mark.parametrize("law", LAWS)
def test_no_frame_is_lost_over_the_turn_of_the_numbers(law: str) -> None:
    l16 = at_bot(law, 3000, begin=1000)
    found = numbered_uplink(l16, arrivals_of(l16))
    assert (found.frames, found.lost, found.repeated, found.silent, found.damaged) == (3000, [], 0, 0, 0)
    assert found.late == pytest.approx(0, abs=1e-6)


def test_lost_numbered_frames_are_found_where_they_were() -> None:
    l16 = at_bot("PCMU", 1000, begin=1500)
    gone = {100, 101, 500, 998}
    kept = [n for n in range(1000) if n not in gone]
    audio = b"".join(l16[320 * n : 320 * n + 320] for n in kept)
    arrivals = [(50 + 0.02 * n, 320 * (i + 1)) for i, n in enumerate(kept)]
    found = numbered_uplink(audio, arrivals)
    assert found.lost == pytest.approx([50 + 0.02 * n for n in sorted(gone)])
    assert (found.repeated, found.silent, found.damaged) == (0, 0, 0)


def test_silenced_damaged_and_repeated_frames() -> None:
    l16 = bytearray(at_bot("PCMU", 100))
    l16[320 * 10 : 320 * 11] = bytes(320)
    l16[320 * 20 : 320 * 20 + 160] = bytes(160)
    l16[320 * 30 : 320 * 31] = l16[320 * 29 : 320 * 30]
    found = numbered_uplink(bytes(l16), arrivals_of(bytes(l16)))
    assert (found.silent, found.damaged, found.repeated) == (1, 1, 1)
    assert found.lost == pytest.approx([50 + 0.02 * n for n in (10, 20, 30)])


def test_numbered_frames_that_do_not_begin_with_the_audio() -> None:
    l16 = at_bot("PCMU", 200)[2 * 100 :]
    found = numbered_uplink(l16, arrivals_of(l16))
    assert (found.lost, found.damaged) == ([], 0)


def test_lateness_of_numbered_frames() -> None:
    l16 = at_bot("PCMU", 200)
    arrivals = [(at + (0.3 if n > 100 else 0.0), count) for n, (at, count) in enumerate(arrivals_of(l16))]
    assert numbered_uplink(l16, arrivals).late == pytest.approx(0.3)


def test_an_uplink_without_numbers() -> None:
    assert numbered_uplink(b"", []).frames == 0
    assert numbered_uplink(bytes(3200), arrivals_of(bytes(3200))).lost == []


def test_loud_packets() -> None:
    loud = [
        RtpPacket(8, 1, 0, 7, g711.SILENCE["PCMA"] * FRAME),
        RtpPacket(101, 2, 160, 7, bytes([5, 10, 0, 160])),
        RtpPacket(0, 3, 160, 7, LINE.codes(0, 160)),
    ]
    assert [is_loud(packet) for packet in loud] == [False, False, True]


# -- the processes that measure -----------------------------------------------------------------------


def test_callers_send_in_time_and_receive_with_the_kernels_stamps() -> None:
    with Peer() as peer:
        one, other = peer.open(), peer.open(ptime=40)
        one.say(("127.0.0.1", other.port))
        other.say(("127.0.0.1", one.port))
        got: dict[int, list[Arrival]] = {one.number: [], other.number: []}
        gone: dict[int, list] = {one.number: [], other.number: []}
        deadline = time.monotonic() + 10
        while min(map(len, got.values())) < 10 and time.monotonic() < deadline:
            for voice in (one, other):
                arrivals, packets_sent = voice.take()
                got[voice.number] += arrivals
                gone[voice.number] += packets_sent
        for voice, heard_of, size in ((one, other, 320), (other, one, 160)):
            for arrival, (at, position, samples) in zip(
                got[voice.number], gone[heard_of.number], strict=False
            ):
                assert arrival.packet.payload == CALLER.codes(position, size)
                assert samples == size
                assert 0 <= arrival.at - at < 1  # by one clock
        assert min(map(len, got.values())) >= 10


def answered(bots: Bots, talk: Talk, *, binary: bool, seconds: float) -> tuple[list[Said], list[bytes | str]]:
    """What a bot says that it said, and what its call has got."""
    with connect(bots.url, additional_headers={"X-CRT-Object-ID": "d444"}) as line:
        line.send(bytes(320))
        bots.wait("d444", frames=1)
        bots.talk({"d444": (talk, 1)}, seconds, binary=binary)
        (told,) = bots.said(seconds).values()
        messages = []
        while len(messages) < sum(len(s.sent) + (s.cleared is not None) for s in told):
            messages.append(line.recv(timeout=10))
    return told, messages


def test_a_bot_says_what_it_says_that_it_said() -> None:
    with Bots() as bots:
        told, messages = answered(bots, Talk(0.1, 40, rest=(0.01, 0.01)), binary=True, seconds=1.0)
        assert b"".join(messages) == b"".join(LINE.linear(s.start, 800) for s in told)  # type: ignore[arg-type]
        assert {len(s.sent) for s in told} == {3}
        assert [s.start for s in told] == [told[0].start + 800 * n for n in range(len(told))]  # all of it new
        (connection,) = bots.take("d444")
        assert [data for _, data in connection.frames] == [bytes(320)]


def test_a_bot_paces_and_speaks_in_json() -> None:
    with Bots() as bots:
        talk = Talk(0.12, 40, paced=True, rest=(0.01, 0.01))
        told, messages = answered(bots, talk, binary=False, seconds=1.0)
        assert {json.loads(message)["type"] for message in messages} == {"streamAudio"}
        for some in told:
            steps = [later - earlier for (earlier, _), (later, _) in pairwise(some.sent)]
            assert min(steps) >= 0.04 - max(0.001, some.late)


def test_a_bot_takes_back_what_it_said() -> None:
    with Bots() as bots:
        talk = Talk(0.1, 100, rest=(0, 0), clear=(0.05, 0.05))
        told, messages = answered(bots, talk, binary=True, seconds=1.0)
        assert messages[1::2] == ['{"type":"clear"}'] * len(told)
        for some in told:
            assert some.cleared is not None
            assert some.cleared - some.at >= 0.05


# -- rows ---------------------------------------------------------------------------------------------


def test_figures_of_rounds_are_put_together() -> None:
    one = {"n": 1, "values": [0.1], "of": {"a": [1], "b": 2}, "none": None}
    other = {"n": 2, "values": [0.2], "of": {"b": 3, "c": 4}, "none": None, "new": 5}
    both = {"n": 3, "values": [0.1, 0.2], "of": {"a": [1], "b": 5, "c": 4}, "none": None, "new": 5}
    assert merge(one, other) == both
    assert one["of"] == {"a": [1], "b": 2}


def test_edges_that_touch_are_one() -> None:
    assert around([(1.0, 2.0), (2.3, 3.0), (9.0, 9.5)]) == [(0.75, 3.25), (8.75, 9.75)]


def judged(key: str, figures: dict) -> bool:
    (row,) = [row for row in rows.ROWS if row.key == key]
    return row.judge(figures)[1]


def sound(**faults: int) -> dict[str, int]:
    return {**soundness([Utterance(first=0.01, began=1.0, over=2.0, heard=8000)]), **faults}


def talk(first: float = 0.02, **faults: int) -> dict:
    kinds = (*rows.BURSTS, *rows.PACED, *rows.JITTER)
    some = {"first": [first] * 99, "headless": 0, "sound": sound(**faults), "speaking": [0.016] * 9}
    return {
        "kinds": dict.fromkeys(kinds, some),
        "caller": {
            "silent": [0.016],
            "speaking": [0.016],
            "lost_speaking": 0,
            "lost": 0,
            "repeated": 0,
            "frames": 9,
        },
    }


def test_bars_of_a_conversation() -> None:
    for key in ("burst", "paced", "jitter", "gaps", "uplink", "lost"):
        assert judged(key, talk())
    assert not judged("burst", talk(first=0.026))
    assert judged("paced", talk(first=0.026))
    assert not judged("gaps", talk(gaps=1))
    assert not judged("gaps", talk(jumps=1))
    late = talk()
    late["kinds"]["burst-20"] = {**late["kinds"]["burst-20"], "speaking": [0.016] * 9 + [0.026]}
    assert not judged("uplink", late)
    headless = talk()
    headless["kinds"]["burst-20"] = {**headless["kinds"]["burst-20"], "headless": 1}
    assert not judged("burst", headless)
    lossy = talk()
    lossy["caller"]["lost_speaking"] = 160
    assert not judged("lost", lossy)


def test_nothing_measured_meets_no_bar() -> None:
    empty = talk()
    for kind, some in empty["kinds"].items():
        empty["kinds"][kind] = {**some, "first": [], "sound": soundness([])}
    assert not judged("burst", empty)
    assert not judged("gaps", empty)
    assert not judged("turn", {"turn": []})


def killed(**more: object) -> dict:
    base = {"kills": 200, "seconds": 90.0, "silences": [0.02] * 200, "dry": [], "sound": sound(gaps=200)}
    caller = {"caller": {"lost": 0}, "connections": 1, "calls": 1, "resumed": 0}
    return {**base, **caller, **more}


def test_bar_of_killed_controllers() -> None:
    assert judged("kill", killed())
    assert not judged("kill", killed(silences=[0.02] * 199 + [0.04]))
    assert not judged("kill", killed(dry=[0.03]))
    assert not judged("kill", killed(sound=sound(lost=1)))
    assert not judged("kill", killed(sound=sound(repeated=160)))
    assert not judged("kill", killed(resumed=1))
    assert not judged("kill", killed(connections=2))


def test_bar_of_odd_lines() -> None:
    right = {"sound": sound(), "speed": [1.0], "first": [0.02], "caller_lost": 0, "caller_late": [0.016]}
    lines = {"hold inactive": right, "silent": right, "40 ms, said": right}
    for key in ("hold", "silent", "ptime"):
        assert judged(key, {"lines": lines, "lost_customers": 0})
    slow = {**lines, "40 ms, said": {**right, "speed": [0.5]}}
    assert not judged("ptime", {"lines": slow, "lost_customers": 0})
    assert judged("hold", {"lines": slow, "lost_customers": 0})
    assert not judged("hold", {"lines": lines, "lost_customers": 1})
    other = {"40 ms, said": right}
    assert not judged("hold", {"lines": other, "lost_customers": 0})


# -- the rest -----------------------------------------------------------------------------------------


def test_percentiles() -> None:
    values = list(range(1, 101))
    random.Random(1).shuffle(values)
    assert [percentile(values, p) for p in (0, 50, 99, 100)] == [1, 50, 99, 100]
    assert percentile([3.0], 99) == 3.0
    assert percentile([], 50) != percentile([], 50)


def test_two_marked_sounds_are_not_each_others() -> None:
    assert Marks(3).find(Marks(4).codes(0, 16), 0) is None
