"""What a lab reads of its processes."""

from __future__ import annotations

from pathlib import Path

from eslbot.sim.service import Log


def test_a_log_is_read_on_from_where_the_last_look_ended(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = Log(path)
    assert log.lines() == []
    path.write_bytes(b'{"event": "one"}\nTraceback\n{"event": "t')
    assert log.lines() == [{"event": "one"}]
    with path.open("ab") as file:
        file.write('wö"}\n'.encode())
    assert log.lines() == [{"event": "one"}, {"event": "twö"}] == log.lines()


def test_a_line_that_a_kill_cut_off_is_left_out_and_costs_no_other(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b'{"event": "cut {"event": "glued to it"}\n{"event": "\xff"}\n{"event": "cut at the e')
    log = Log(path)
    assert log.lines() == [{"event": "\N{REPLACEMENT CHARACTER}"}]


def test_what_is_made_of_the_lines_does_not_change_them(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b'{"event": "one"}\n')
    log = Log(path)
    log.lines().clear()
    assert log.lines() == [{"event": "one"}]
