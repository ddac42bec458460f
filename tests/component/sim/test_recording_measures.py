"""The measures of ``benchmarks.recording`` on sound whose faults are known."""

from __future__ import annotations

import pytest

np = pytest.importorskip("numpy", reason="numpy is in the extra `benchmark`")

from benchmarks.recording.measures import (  # noqa: E402
    alignment,
    gaps,
    onsets,
    second_of_sound,
    wire_onsets,
)

SOUND = np.frombuffer(second_of_sound(500, 1000) * 10, "<i2")


def later(samples: int) -> np.ndarray:
    return np.concatenate((np.zeros(samples, np.int16), SOUND))


def packets(begun: float) -> list[tuple[float, np.ndarray]]:
    return [(begun + at / 8000, SOUND[at : at + 160]) for at in range(0, len(SOUND), 160)]


def test_loud_tones_are_found_where_they_begin() -> None:
    found = onsets(SOUND)
    assert len(found) == 10
    assert all(7200 <= at - 8000 * number <= 7205 for number, at in enumerate(found))
    assert onsets(np.zeros(8000, np.int16)) == []
    assert wire_onsets(packets(100.0)) == pytest.approx([100.0 + at / 8000 for at in found])


@pytest.mark.parametrize("off", [0, 80, -160, 400])
def test_a_side_that_is_off_is_seen_by_how_much(off: int) -> None:
    caller, bot = onsets(later(1000 + off)), onsets(later(1000))
    said, heard = wire_onsets(packets(50.0)), wire_onsets(packets(50.0))
    found = alignment(caller, bot, said, heard)
    assert len(found.off) == 10
    assert found.off == pytest.approx([off / 8000] * 10, abs=1e-6)
    assert found.worst == pytest.approx(abs(off) / 8000, abs=1e-6)


def test_nothing_to_compare_is_no_figure() -> None:
    assert np.isnan(alignment([], [], [], []).worst)


def test_gaps_are_found_and_none_invented() -> None:
    assert gaps(SOUND) == []
    assert gaps(later(500)) == [], "silence before it is none"
    holed = SOUND.copy()
    holed[3000:3160] = 0
    holed[9000:9040] = 0  # 5 ms
    ((begin, length),) = gaps(holed)
    assert 2990 <= begin <= 3000 and 158 <= length <= 175
