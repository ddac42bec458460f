"""What is left of a call for the next controller: files, locks, and who may touch them."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from eslbot.calls import resume_state
from eslbot.calls.resume_state import ResumeState, ResumeStates

CALL = "6e7cd1a1-0b1a-4ad5-8a2c-000000000001"
LEFT = ResumeState({"eslbot_stage": "talking", "eslbot_reason": ""}, 10.5, 11.0, 99.25, "127.0.0.1")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "calls"


def test_what_is_left_is_taken_once(directory: Path) -> None:
    ours, theirs = ResumeStates(directory), ResumeStates(directory)
    ours.save(CALL, LEFT)
    assert list(theirs.lost()) == [CALL]
    assert theirs.take(CALL) == LEFT
    assert theirs.take(CALL) is None and ours.take(CALL) is None
    assert list(directory.iterdir()) == []


def test_nothing_is_there_before_something_is_left(directory: Path) -> None:
    ours = ResumeStates(directory)
    assert ours.take(CALL) is None and list(ours.lost()) == []
    assert not directory.exists()


def test_while_a_notification_is_under_way_the_file_stays(directory: Path) -> None:
    ours, theirs = ResumeStates(directory), ResumeStates(directory)
    under_way = ResumeState({"eslbot_attempts": "1"}, 1.0, 2.0, 3.0, under_way=True)
    ours.save(CALL, under_way)
    assert theirs.take(CALL) == under_way == theirs.take(CALL)
    with theirs.claim(CALL) as claim:
        assert claim is None
    over = ResumeState({"eslbot_stage": "held"}, 1.0, 2.0, 3.0)
    ours.save(CALL, over)
    assert theirs.take(CALL) == over
    assert list(directory.iterdir()) == []


def test_the_lock_dies_with_who_has_it(directory: Path) -> None:
    pid = os.fork()
    if not pid:
        ResumeStates(directory).save(CALL, ResumeState({}, 1.0, 2.0, 3.0, under_way=True))
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    left = ResumeStates(directory).take(CALL)
    assert left is not None and not left.under_way


def test_a_file_that_is_replaced_while_it_is_taken_is_taken_anew(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its writer's last word, put there between the look at the one before and its deletion."""
    ours = ResumeStates(directory)
    ours.save(CALL, LEFT)
    last = ResumeState({"eslbot_stage": "held"}, 1.0, 2.0, 3.0)
    lock = resume_state._lock

    def locked(descriptor: int) -> bool:
        monkeypatch.setattr(resume_state, "_lock", lock)
        ours.save(CALL, last)
        return lock(descriptor)

    monkeypatch.setattr(resume_state, "_lock", locked)
    assert ResumeStates(directory).take(CALL) == last


def test_a_claim_is_there_again_for_the_next_until_it_is_done(directory: Path) -> None:
    ours, theirs = ResumeStates(directory), ResumeStates(directory)
    ours.save(CALL, LEFT)
    with theirs.claim(CALL) as claim:
        assert claim is not None and claim.state == LEFT
        taken = ours.take(CALL)
        assert taken is not None and taken.under_way, "whoever has the call waits"
        with ours.claim(CALL) as second:
            assert second is None
    with ours.claim(CALL) as claim:
        assert claim is not None
        claim.done()
    assert list(directory.iterdir()) == []
    with ours.claim(CALL) as claim:
        assert claim is None


def test_what_cannot_be_read_is_nobodys_claim(directory: Path) -> None:
    directory.mkdir()
    (directory / CALL).write_text("{")
    with ResumeStates(directory).claim(CALL) as claim:
        assert claim is None
    assert list(directory.iterdir()) == []


@pytest.mark.parametrize("call_id", ["../x", "", "a" * 65, "a/b", ".hidden", "a b"])
def test_a_call_without_a_uuid_has_no_file(directory: Path, call_id: str) -> None:
    ours = ResumeStates(directory)
    ours.save(call_id, LEFT)
    assert ours.take(call_id) is None
    assert not directory.exists() or list(directory.iterdir()) == []


def test_a_link_is_not_followed(directory: Path, tmp_path: Path) -> None:
    directory.mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("{}")
    (directory / CALL).symlink_to(elsewhere)
    assert ResumeStates(directory).take(CALL) is None
    assert elsewhere.read_text() == "{}"


def test_only_our_own_variables_come_back(directory: Path) -> None:
    ours = ResumeStates(directory)
    ours.save(CALL, ResumeState({"eslbot_stage": "held", "sip_h_X": "1", "eslbot_Ä": "1"}, 1.0, 2.0, 3.0))
    left = ours.take(CALL)
    assert left is not None and left.variables == {"eslbot_stage": "held"}


def test_what_nobody_comes_for_is_swept_after_an_hour(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = ResumeStates(directory)
    ours.save("old", LEFT)
    ours.save("young", LEFT)
    old = time.time() - resume_state.NOBODYS - 1
    os.utime(directory / "old", (old, old))
    assert list(ours.lost()) == ["young"]
    os.utime(directory / "young", (old, old))
    assert list(ours.lost()) == ["young"], "now and then"
    monkeypatch.setattr(resume_state, "SWEEP", 0.0)
    assert list(ours.lost()) == [] == list(directory.iterdir())


def test_what_is_forgotten_is_gone_whoever_has_it(directory: Path) -> None:
    ours, theirs = ResumeStates(directory), ResumeStates(directory)
    ours.forget(CALL)
    ours.save(CALL, LEFT)
    with theirs.claim(CALL) as claim:
        assert claim is not None
        ours.forget(CALL)
        claim.done()
    assert theirs.take(CALL) is None and list(theirs.lost()) == []
    ours.forget("../x")


@pytest.mark.parametrize(
    ("do", "event"),
    [("claim", "left_call_not_read"), ("forget", "left_call_not_deleted")],
)
def test_what_a_disk_does_not_let_us_do_is_said(
    directory: Path, do: str, event: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no other worker that was faster."""
    ours = ResumeStates(directory)
    ours.save(CALL, LEFT)

    def fails(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with capture_logs() as told:
        if do == "claim":
            with monkeypatch.context() as patched:
                patched.setattr(resume_state.os, "open", fails)
                with ours.claim(CALL) as claim:
                    assert claim is None
        else:
            with monkeypatch.context() as patched:
                patched.setattr(resume_state.Path, "unlink", fails)
                ours.forget(CALL)
    (line,) = told
    assert (line["event"], line["file"]) == (event, str(directory / CALL))
    assert ours.take(CALL) == LEFT, "it is there for the next look"


def test_who_was_faster_is_not_said(directory: Path) -> None:
    with capture_logs() as told, ResumeStates(directory).claim(CALL) as claim:
        assert claim is None
    assert told == []
