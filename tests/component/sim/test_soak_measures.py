"""The soak's arithmetic: what grew, how the RTP clock drifts, what is kept of thousands of calls."""

from __future__ import annotations

import json
import os
import random
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from benchmarks.soak import callers
from benchmarks.soak.callers import Batch, cause
from benchmarks.soak.clock import drift, windows
from benchmarks.soak.growth import Growth, Limit, growth, slope, thinned
from benchmarks.soak.log import Log
from benchmarks.soak.picture import draw
from benchmarks.soak.plan import INTERVALS, KINDS, PlannedBatch, batches, faults, interval
from benchmarks.soak.samples import CALLS, COLUMNS, Row, Samples, of_process, read, series
from benchmarks.soak.tally import TOLD, Tally
from eslbot.sim.pbx.media import Arrival
from eslbot.sim.pbx.trace import Dialog
from eslbot.sim.rtp import RtpPacket
from tests.support.audit import STRANDED_LIMIT, Fault, Leftovers, Placed, Post, account
from tests.support.clock import Clock

LIMIT = Limit(2048, 0.0, "kB")
Points = list[tuple[float, float]]


def memory(begin: float, end: float, at_first: float, a_second: float, seed: int = 1) -> Points:
    """A process that fills up in its first minute, grows, and jumps about by 300 kB."""
    rng = random.Random(seed)
    points = []
    for second in range(int(begin), int(end), 5):
        age = second - begin
        full = at_first - 20_000 * max(0.0, 1 - age / 50)
        points.append((float(second), full + a_second * age + rng.uniform(-300, 300)))
    return points


def grown(lives: dict[int, Points], begin: float = 1800, end: float = 3600) -> Growth:
    found = growth("it", lives, begin, end, LIMIT)
    assert found is not None
    return found


def test_a_slope_is_not_moved_by_outliers() -> None:
    points = [(float(n), 2.0 * n) for n in range(50)]
    points[7], points[30] = (7.0, 9000.0), (30.0, -9000.0)
    assert slope(points) == pytest.approx(2.0)
    assert slope([]) == slope([(1.0, 5.0)]) == 0.0


def test_many_points_are_thinned_to_their_medians() -> None:
    few = thinned([(float(n), 3.0 * n) for n in range(10_000)])
    assert len(few) <= 150
    assert slope(few) == pytest.approx(3.0)


def test_what_lives_long_is_flat_or_grows() -> None:
    flat = grown({7: memory(0, 3600, 50_000, 0.0)})
    assert not flat.broken and abs(flat.grown) < 200 and flat.how == "by itself"

    leaks = grown({7: memory(0, 3600, 50_000, 2.0)})  # 3.6 MB in half an hour
    assert leaks.broken and leaks.grown == pytest.approx(3600, abs=200)
    assert "TOO MUCH" in str(leaks)


def test_a_process_that_fills_up_does_not_grow() -> None:
    assert not grown({7: memory(1800, 3600, 50_000, 0.0)}).broken


def test_what_is_replaced_every_ten_minutes_is_looked_at_by_its_lives() -> None:
    def lives(a_second: float) -> dict[int, Points]:
        return {pid: memory(pid * 600, (pid + 1) * 600, 80_000, a_second, pid) for pid in range(6)}

    assert not grown(lives(0.0)).broken
    leaks = grown(lives(6.0))  # 3.2 MB in the nine minutes behind the first
    assert leaks.broken and leaks.lives == 3


def test_what_dies_every_half_minute_is_looked_at_one_after_another() -> None:
    def lives(a_generation: float) -> dict[int, Points]:
        # Some live for 20 s, some for 50: they fill up all the while, and none is seen for long.
        found, at = {}, 0
        rng = random.Random(4)
        for pid in range(200):
            length = rng.choice([20, 30, 50])
            found[pid] = [(t, v + a_generation * pid) for t, v in memory(at, at + length, 40_000, 0.0, pid)]
            at += length // 2
        return found

    flat = grown(lives(0.0), 1000, 3000)
    assert flat.how == "one after another" and not flat.broken
    assert grown(lives(40.0), 1000, 3000).broken


def test_too_little_is_not_judged() -> None:
    assert growth("it", {7: memory(0, 20, 1000, 0.0)}, 0, 3600, LIMIT) is None
    assert growth("it", {}, 0, 3600, LIMIT) is None


def test_a_share_of_what_there_is_is_a_limit_too() -> None:
    limit = Limit(5, 0.02, "")
    many = growth(
        "it", {0: [(float(t), 400.0 + t / 300) for t in range(0, 3600, 5)]}, 1800, 3600, limit, warm=0
    )
    assert many is not None and many.limit == pytest.approx(0.02 * many.level) and not many.broken


def packets(
    seconds: float, ppm: float, *, at: float = 1000.0, seed: int = 1, first: int = 0xFFFFF000
) -> list[Arrival]:
    """Packets of a sender whose clock is slow by so much, held up by up to 15 ms; a time stamp that wraps."""
    rng = random.Random(seed)
    found = []
    for number in range(int(seconds * 50)):
        packet = RtpPacket(0, number, (first + 160 * number) & 0xFFFFFFFF, 77, b"")
        due = at + number * 0.02 * (1 + ppm / 1e6)
        found.append(Arrival(due + rng.expovariate(1 / 0.003), packet))
    return found


@pytest.mark.parametrize("ppm", [-50.0, 0.0, 50.0])
def test_the_drift_of_a_clock(ppm: float) -> None:
    found = drift([windows(packets(300, ppm))])
    assert found is not None
    assert found.ppm == pytest.approx(ppm, abs=3)
    assert found.pieces == 1 and found.seconds > 280


def test_a_jump_and_another_sender_are_no_drift() -> None:
    arrivals = packets(100, 0.0)
    arrivals += packets(100, 0.0, at=1100.4, seed=2, first=0xFFFFF000 + 160 * 5000)  # 400 ms late for good
    arrivals += packets(100, 0.0, at=1203.0, seed=3, first=12)
    found = drift([windows(arrivals)])
    assert found is not None
    assert abs(found.ppm) < 5
    assert found.pieces == 3


def test_a_short_call_tells_no_drift() -> None:
    assert drift([windows(packets(10, 0.0)), []]) is None
    assert windows([]) == []


def test_a_plan_is_the_seed_s_alone() -> None:
    names = list(INTERVALS)
    first, again = list(islice(batches(7), 300)), list(islice(batches(7), 300))
    assert first == again != list(islice(batches(8), 300))
    assert {batch.kind for batch in first} == set(KINDS)
    assert all(batch.calls == len(batch.ameyo) for batch in first)
    assert faults(7, 1200.0, names) == faults(7, 1200.0, names) != faults(8, 1200.0, names)
    # What one fault does when is not changed by which others there are.
    assert faults(7, 1200.0, ["HUP"])["HUP"] == faults(7, 1200.0, names)["HUP"]


@pytest.mark.parametrize("minutes", [1.5, 20, 480])
def test_a_run_has_some_of_every_fault_and_no_two_deaths_of_freeswitch_in_a_minute(minutes: float) -> None:
    planned = faults(3, 60 * minutes, list(INTERVALS))
    assert all(planned.values())
    times = {
        name: [sum(f.pause for f in of[: n + 1]) for n in range(len(of))] for name, of in planned.items()
    }
    assert all(0 < at <= 60 * minutes for of in times.values() for at in of)
    crashes = [fault.pause for fault in planned["crash FreeSWITCH"]]
    assert all(pause > 60 for pause in crashes[1:])
    if minutes == 480:
        assert len(crashes) > 35
        assert interval("kill worker", 60 * minutes) == 10


def test_a_cause_is_told_from_the_dialog() -> None:
    def batch(hangs_up: float | None, overdue: bool = False) -> Batch:
        planned = PlannedBatch(1, "speaks", 1, hangs_up, ["accepts"], "")
        return Batch(planned, ["crt"], 0.0, 60.0, overdue=overdue)

    dialog = Dialog("1", status=200, final_at=100.0, bye_at=105.0, ended_by="pbx")
    assert cause(batch(None), dialog) == "accepted"
    assert cause(batch(5.0), dialog) == "hangup_after"
    assert cause(batch(12.0), dialog) == "accepted"
    assert cause(batch(None, overdue=True), dialog) == "timeout"
    assert cause(batch(None), Dialog("1")) is None


def test_a_batch_is_judged_when_ameyo_is_told_of_its_calls_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    monkeypatch.setattr(callers, "time", clock)
    lab: Any = None
    some = callers.Callers(lab, 7, 1, batches(7), 15.0, lab, lambda number, arrivals: None)
    batch = Batch(next(batches(7)), ["crt"], 0.0, 60.0, over_at=clock.now)
    some.over = [batch]
    clock.now += STRANDED_LIMIT + 24.0  # and Ameyo was away until then
    assert some.settled() == []
    clock.now += 2.0
    assert (some.settled(), some.settled()) == ([batch], [])


CALL = Placed(
    "c", "speaks", answered=True, status=200, ended_by="pbx", cause="accepted", answered_at=1.0, ended_at=9.0
)


def test_a_tally_keeps_counts_and_what_is_guilty() -> None:
    tally = Tally()
    post = Post(
        8.0, 8.1, accepted=True, crt_object_id="c", tenant="speaks", properties={"outcome": "bot_ended"}
    )
    for _ in range(3):
        tally.add(account([CALL], [post, post], [Fault("k", 8.0, 8.1, "controller")], Leftovers()))
    tally.add(account([CALL], [], [], Leftovers()))
    assert (tally.calls, tally.answered, tally.accounted) == (4, 4, 4)
    assert tally.endings == {"handed off": 3, "lost": 1}
    assert tally.duplicates.total() == 3 and tally.broken == 1
    assert "answered and never accepted" in tally.guilty[0]
    tally.find_guilty(str(n) for n in range(10 * TOLD))
    assert tally.broken == 10 * TOLD + 1 and len(tally.guilty) == TOLD


def line(**fields: str) -> str:
    return json.dumps({"crt_object_id": "c", "call_id": "u", **fields}) + "\n"


def test_the_log_is_read_as_it_grows_and_emptied_where_it_gets_long(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text(line(event="call_taken_over"))
    log = Log(path, long=200)
    log.read()
    with path.open("a") as file:
        file.write(line(event="call_taken_over") + line(event="x", level="error", exception="Traceback"))
        file.write("no JSON\n" + line(event="call_ended", sip_hangup_disposition="recv_bye")[:20])
    log.read()
    with path.open("a") as file:
        file.write(line(event="call_ended", sip_hangup_disposition="recv_bye")[20:])
    log.read()
    assert path.stat().st_size == 0
    with path.open("a") as file:
        file.write(line(event="call_taken_over"))
    log.read()
    told = log.take("c")
    assert (told.take_overs, told.dispositions, told.call_id) == (2, ["recv_bye"], "u")
    assert (log.exceptions, log.events) == (1, {"x": 1})
    assert log.take("c").take_overs == 0


def test_samples_are_read_back_and_drawn(tmp_path: Path) -> None:
    path = tmp_path / "soak.csv"
    with Samples(path, lambda: {"worker": [os.getpid(), 2**22 + 1]}, lambda: {CALLS: 3.0}, 0.05) as samples:
        samples.windows(1, [(samples.begun + 1.0, 0.002)])
        samples.wait(3)
    rows = read(path)
    (pid,) = series(rows, "worker", "rss_kb")
    assert pid == os.getpid()
    assert series(rows, CALLS, "count")[0][0][1] == 3.0
    assert Row(1.0, "rtp clock", 1, count=2.0) in rows
    draw(
        rows,
        [Fault("crash", samples.begun + 1, samples.begun + 2, "crash")],
        samples.begun,
        tmp_path / "a.svg",
    )
    assert (tmp_path / "a.svg").read_text().count("<path") > 20
    path.write_text(",".join(COLUMNS) + "\n1.0,worker,7,100,5,2,\n2.0,work")
    assert read(path) == [Row(1.0, "worker", 7, 100.0, 5.0, 2.0)]
    assert of_process(0.0, "x", 2**22 + 1) is None
