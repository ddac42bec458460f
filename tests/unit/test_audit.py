"""A clean account is clean; one that was doctored in any single way is found guilty."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from eslbot.calls import stranded
from tests.support.audit import (
    STRANDED_LIMIT,
    Account,
    Duplicate,
    Ending,
    Fault,
    Leftovers,
    Placed,
    Post,
    account,
)

CALL_ID = "0b1c0000-0000-4000-8000-000000000001"
HANDED_OFF = Placed(
    "crt-1",
    "acme",
    answered=True,
    status=200,
    ended_by="pbx",
    cause="accepted",
    answered_at=100.0,
    ended_at=110.0,
    bot_ended_at=108.0,
    promised={"agent_group": "sales"},
    dispositions=["recv_bye"],
    call_id=CALL_ID,
)
HUNG_UP = replace(
    HANDED_OFF,
    crt_object_id="crt-2",
    cause="hangup_after",
    bot_ended_at=None,
    promised=None,
    call_id="other",
)
REFUSED = Placed("crt-3", "acme", answered=False, status=503, ended_at=52.0)
AWAY = Fault("eslbot away", 50.0, 51.0, "controller")
POST = Post(
    109.0,
    109.1,
    accepted=True,
    status=200,
    crt_object_id="crt-1",
    tenant="acme",
    properties={"outcome": "bot_ended", "agent_group": "sales", "DID": "0091"},
)


@dataclass
class Run:
    calls: list[Placed] = field(default_factory=lambda: [HANDED_OFF, HUNG_UP, REFUSED])
    posts: list[Post] = field(default_factory=lambda: [POST])
    faults: list[Fault] = field(default_factory=lambda: [AWAY])
    left: Leftovers = field(default_factory=Leftovers)

    def account(self) -> Account:
        return account(self.calls, self.posts, self.faults, self.left)


def kill(at: float, calls: frozenset[str] | None = frozenset({"crt-1"}), hits: str = "controller") -> Fault:
    return Fault("kill of a worker", at, at, hits, calls)


def test_a_clean_run_is_clean() -> None:
    found = Run().account()

    assert found.guilty == []
    assert [entry.ending for entry in found.entries] == [
        Ending.HANDED_OFF,
        Ending.CALLER_FIRST,
        Ending.REFUSED,
    ]
    assert "the account is clean" in found.table()


def tell(run: Run, **properties: str) -> None:
    run.posts[0] = replace(POST, properties={**POST.properties, **properties})


def doctored(change: Callable[[Run], object]) -> list[str]:
    run = Run()
    change(run)
    return run.account().guilty


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda run: run.posts.clear(), "never accepted by Ameyo (0 attempts)"),
        (
            lambda run: run.posts.__setitem__(0, replace(POST, accepted=False, status=503)),
            "never accepted by Ameyo (1 attempts)",
        ),
        (
            lambda run: (run.posts.clear(), run.calls.__setitem__(0, replace(HANDED_OFF, cause="timeout"))),
            "ended: timeout",
        ),
        (lambda run: run.calls.__setitem__(0, replace(HANDED_OFF, ended_by="switch")), "our side sent BYE"),
        (
            lambda run: run.calls.__setitem__(0, replace(HANDED_OFF, dispositions=["send_bye"])),
            "eslbot itself saw our side's BYE",
        ),
        (lambda run: run.calls.__setitem__(0, replace(HANDED_OFF, ended_by=None)), "not ended by the PBX"),
        (lambda run: run.posts.append(replace(POST, at=109.5)), "notified again: no excuse"),
        (lambda run: run.posts.__setitem__(0, replace(POST, tenant="other")), "call of tenant 'other'"),
        (
            lambda run: run.posts.insert(0, replace(POST, accepted=False, problem="no such token")),
            "Ameyo refused a notification: no such token",
        ),
        (lambda run: run.posts.append(replace(POST, crt_object_id="crt-9")), "an unknown call 'crt-9'"),
        (lambda run: run.posts.append(replace(POST, crt_object_id="crt-3")), "notified and never answered"),
        (
            lambda run: run.faults.__setitem__(0, replace(AWAY, hits="reload")),
            "refused with 503, and eslbot was well",
        ),
        (
            lambda run: run.faults.__setitem__(0, replace(AWAY, at=40.0, until=41.0)),
            "refused with 503, and eslbot was well",
        ),
        (
            lambda run: run.calls.append(Placed("crt-4", "acme", answered=False)),
            "no final response to the INVITE",
        ),
        (
            lambda run: run.calls.__setitem__(1, replace(HUNG_UP, bot_ended_at=101.0, ended_at=140.0)),
            "nobody told Ameyo",
        ),
        (
            lambda run: run.posts.__setitem__(0, replace(POST, at=130.0, answered_at=130.1)),
            "its caller waited 22.0 s behind the bot's end until Ameyo accepted",
        ),
        (lambda run: tell(run, outcome="controller_lost"), "outcome controller_lost"),
        (lambda run: tell(run, outcome="internal_error"), "outcome internal_error"),
        (lambda run: tell(run, outcome="bot_failed"), "the bot's end was lost: outcome bot_failed"),
        (lambda run: tell(run, agent_group=""), "what the bot gave for Ameyo was lost: agent_group"),
        (lambda run: setattr(run, "left", Leftovers(channels=1)), "1 channels left"),
        (lambda run: setattr(run, "left", Leftovers(calls_active=2.0)), "still counts 2 calls"),
        (lambda run: setattr(run, "left", Leftovers(event_sockets=3)), "3 event sockets"),
        (lambda run: setattr(run, "left", Leftovers(sockets={7: 500})), "worker 7 has 500 sockets"),
        (lambda run: setattr(run, "left", Leftovers(internal_errors=1)), "1 internal errors"),
        (lambda run: setattr(run, "left", Leftovers(files=[f"{CALL_ID}.1.a.r8"])), ".1.a.r8 is left"),
        (lambda run: setattr(run, "left", Leftovers(files=["core"])), "the file core is left"),
    ],
)
def test_every_single_fault_is_found(change: Callable[[Run], object], words: str) -> None:
    found = doctored(change)
    assert len(found) == 1, found
    assert words in found[0]


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (kill(109.05), Duplicate.CONTROLLER_LOST),
        (kill(109.59), Duplicate.CONTROLLER_LOST),
        (kill(109.05, None), Duplicate.CONTROLLER_LOST),
        (replace(kill(100.0), until=109.05), Duplicate.CONTROLLER_LOST),
        (kill(109.05, None, "ameyo"), Duplicate.ANSWER_LOST),
        (kill(108.9, None, "ameyo"), Duplicate.UNEXCUSED),
        (kill(108.6), Duplicate.CONTROLLER_LOST),
        (kill(108.4), Duplicate.UNEXCUSED),
        (kill(109.7), Duplicate.UNEXCUSED),
        (kill(109.05, frozenset({"crt-2"})), Duplicate.UNEXCUSED),
        (kill(109.05, None, "bot"), Duplicate.UNEXCUSED),
    ],
)
def test_a_second_notification_needs_a_fault_in_the_right_moment(fault: Fault, why: Duplicate) -> None:
    run = Run(faults=[AWAY, fault])
    run.posts.append(replace(POST, at=111.0, answered_at=111.1))

    found = run.account()

    assert found.duplicates == [("crt-1", why)]
    assert bool(found.guilty) is (why is Duplicate.UNEXCUSED)


def test_a_line_file_is_excused_only_where_the_bye_fell_between_two_controllers() -> None:
    unseen = replace(HANDED_OFF, dispositions=[])
    left = Leftovers(files=[f"{CALL_ID}.1.a.r8"])

    excused = Run([unseen], [POST], [kill(109.9)], left).account()
    assert (excused.guilty, list(excused.to_be_swept)) == ([], [f"{CALL_ID}.1.a.r8"])

    assert Run([HANDED_OFF], [POST], [kill(109.9)], left).account().guilty
    assert Run([unseen], [POST], [], left).account().guilty


def test_a_relay_may_be_lost_where_the_disk_has_no_room_for_a_line() -> None:
    full = Fault("full disk", 101.0, 102.0, "disk")
    run = Run([replace(HANDED_OFF, promised=None)], [POST])
    tell(run, outcome="relay_lost")
    assert "outcome relay_lost" in run.account().guilty[0]
    run.faults.append(full)
    assert run.account().guilty == []
    tell(run, outcome="controller_lost")
    assert "outcome controller_lost" in run.account().guilty[0]


def test_a_caller_s_patience_begins_again_behind_a_fault() -> None:
    waits = replace(HUNG_UP, bot_ended_at=101.0, ended_at=140.0)
    assert Run([waits], [], []).account().guilty
    assert not Run([waits], [], [Fault("Ameyo is away", 101.0, 135.0, "ameyo")]).account().guilty


def test_a_notification_cut_off_by_its_sender_s_death_is_counted_apart() -> None:
    run = Run()
    run.posts.insert(0, Post(105.0, None, accepted=False, problem="no JSON", cut_off=True))
    found = run.account()
    assert (found.guilty, found.cut_off_posts) == ([], 1)


def test_a_bot_that_was_killed_may_have_said_its_end_to_nobody() -> None:
    run = Run(faults=[AWAY, kill(107.0, None, "bot")])
    tell(run, outcome="bot_failed")
    assert run.account().guilty == []


def test_it_is_told_as_a_table_and_as_json() -> None:
    run = Run(faults=[AWAY, kill(109.05), kill(109.05, None, "bot")])
    run.posts.append(replace(POST, at=111.0))
    run.calls.append(replace(HANDED_OFF, crt_object_id="crt-5"))
    found = run.account()

    document = json.loads(found.json())
    assert document["clean"] is False
    assert document["faults"][1]["calls"] == ["crt-1"]
    assert len(document["entries"]) == 4
    assert found.guilty[0] in document["guilty"]
    table = found.table()
    assert "1 broken promises" in table
    assert "2 × kill of a worker" in table
    assert f"GUILTY {found.guilty[0]}" in table


def crash(at: float, until: float | None = None) -> Fault:
    return Fault("crash FreeSWITCH", at, at + 2.0 if until is None else until, "crash")


LOST = replace(HANDED_OFF, ended_by="pbx", cause="timeout", promised=None, invited_at=99.9)


@pytest.mark.parametrize(
    ("at", "ending"),
    [
        (100.0, Ending.LOST_WITH_SWITCH),
        (100.9, Ending.LOST_WITH_SWITCH),
        (101.1, Ending.LOST),  # that was written down
        (97.0, Ending.LOST),  # the next one answered it
    ],
)
def test_freeswitch_may_take_a_call_along_that_is_younger_than_a_second(at: float, ending: Ending) -> None:
    found = Run([LOST], [], [crash(at)]).account()

    assert [entry.ending for entry in found.entries] == [ending]
    assert bool(found.guilty) is (ending is Ending.LOST)


def test_a_young_call_that_was_taken_along_was_not_sent_bye() -> None:
    byed = replace(LOST, ended_by="switch", cause=None)
    assert "our side sent BYE" in Run([byed], [], [crash(100.5)]).account().guilty[0]


@pytest.mark.parametrize(
    ("at", "ending"),
    [
        (100.05, Ending.LOST_WITH_SWITCH),
        (97.95, Ending.LOST_WITH_SWITCH),
        (97.5, Ending.LOST),
        (111.0, Ending.LOST),
    ],
)
def test_freeswitch_may_take_a_call_along_that_is_not_answered(at: float, ending: Ending) -> None:
    unanswered = Placed("crt-4", "acme", answered=False, invited_at=99.9, ended_at=110.0, error="cancelled")

    assert [entry.ending for entry in Run([unanswered], [], [crash(at)]).account().entries] == [ending]


def test_a_refusal_is_excused_by_freeswitch_s_death() -> None:
    assert Run([REFUSED], [], [crash(48.0, 50.0)]).account().guilty == []
    assert Run([REFUSED], [], [crash(43.0, 45.0)]).account().guilty


def test_freeswitch_s_death_excuses_no_second_notification() -> None:
    run = Run([HANDED_OFF], [POST, replace(POST, at=111.0)], [crash(109.05)])
    assert run.account().duplicates == [("crt-1", Duplicate.UNEXCUSED)]


@pytest.mark.parametrize(
    ("crashes", "clean"),
    [
        ([], False),
        ([crash(102.0)], False),
        ([crash(102.0), crash(105.0)], True),
        ([crash(99.0, 99.5), crash(105.0)], False),
    ],
)
def test_the_bot_s_part_may_end_where_freeswitch_died_twice_under_the_call(
    crashes: list[Fault], clean: bool
) -> None:
    run = Run([replace(HANDED_OFF, promised=None)], [POST], crashes)
    tell(run, outcome="switch_lost")
    assert (run.account().guilty == []) is clean


def test_two_deaths_more_than_a_minute_apart_take_no_bot_s_part() -> None:
    long = replace(HANDED_OFF, promised=None, ended_at=210.0, bot_ended_at=205.0)
    run = Run([long], [replace(POST, at=206.0)], [crash(102.0), crash(163.0)])
    run.posts[0] = replace(run.posts[0], properties={**POST.properties, "outcome": "switch_lost"})
    assert "outcome switch_lost" in run.account().guilty[0]


@pytest.mark.parametrize(("seconds", "clean"), [(4.9, False), (5.1, True)])
def test_a_relay_may_be_lost_where_there_was_none_for_five_seconds(seconds: float, clean: bool) -> None:
    run = Run(
        [replace(HANDED_OFF, promised=None)], [POST], [Fault("kill relay", 101.0, 101.0 + seconds, "relay")]
    )
    tell(run, outcome="relay_lost")
    assert (run.account().guilty == []) is clean


@pytest.mark.parametrize(("at", "swept"), [(108.5, True), (110.5, True), (105.0, False), (112.0, False)])
def test_a_line_file_may_be_left_where_its_relay_died_at_the_call_s_end(at: float, swept: bool) -> None:
    left = Leftovers(files=[f"{CALL_ID}.1.a.r8"])
    found = Run([HANDED_OFF], [POST], [Fault("kill relay", at, at + 0.1, "relay")], left).account()
    assert (found.guilty == []) is swept
    assert bool(found.to_be_swept) is swept


STRANDED = replace(POST, at=119.0, answered_at=119.1, properties={"outcome": "switch_lost"})
GAVE_UP = replace(LOST, cause=None, bye_at=106.0, ended_at=106.1)
UNHEARD = replace(HUNG_UP, crt_object_id="crt-1", bye_at=102.0, ended_at=104.5)


@pytest.mark.parametrize(
    ("call", "ending"),
    [
        (replace(LOST, cause="accepted", bye_at=119.2, ended_at=119.3), Ending.HANDED_OFF),
        (GAVE_UP, Ending.LOST_WITH_SWITCH),
    ],
)
def test_ameyo_is_told_late_of_a_young_call_that_freeswitch_took_along(call: Placed, ending: Ending) -> None:
    found = Run([call], [STRANDED], [crash(100.5)]).account()
    assert ([entry.ending for entry in found.entries], found.guilty) == ([ending], [])

    older = Run([call], [STRANDED], [crash(101.1)]).account()
    assert "outcome switch_lost" in older.guilty[0], "that one was written down"


@pytest.mark.parametrize(
    ("at", "clean"),
    [
        (97.9, False),  # the next one was there for two seconds
        (98.1, True),
        (101.0, True),
        (102.4, True),
        (102.6, False),  # it was heard before
    ],
)
def test_ameyo_is_told_of_a_caller_whose_bye_fell_into_freeswitch_s_absence(at: float, clean: bool) -> None:
    heard_long_ago = replace(UNHEARD, answered_at=90.0)
    found = Run([heard_long_ago], [STRANDED], [crash(at)]).account()
    assert (found.guilty == []) is clean
    assert (found.entries[0].ending is Ending.CALLER_FIRST) is clean


@pytest.mark.parametrize("outcome", ["controller_lost", "relay_lost", "internal_error"])
def test_freeswitch_s_death_excuses_no_other_word_for_a_lost_call(outcome: str) -> None:
    told = replace(STRANDED, properties={"outcome": outcome})
    assert f"outcome {outcome}" in Run([UNHEARD], [told], [crash(101.0)]).account().guilty[0]


def test_the_account_waits_as_long_as_eslbot_takes() -> None:
    assert stranded.BACK_DUE + stranded.SEARCH_INTERVAL + stranded.ASK_DUE == STRANDED_LIMIT


def test_a_call_that_is_lost_with_freeswitch_is_not_told_twice_nor_without_end() -> None:
    again = replace(STRANDED, at=130.0, answered_at=130.1)
    assert "no excuse" in Run([UNHEARD], [STRANDED, again], [crash(101.0)]).account().guilty[0]

    waits = replace(GAVE_UP, bot_ended_at=None, bye_at=200.0, ended_at=200.1, cause="accepted")
    for at, clean in ((134.4, True), (134.6, False)):  # 32 s behind its absence, whatever the bot does
        told = replace(STRANDED, at=at, answered_at=at)
        assert (Run([waits], [told], [crash(100.5)]).account().guilty == []) is clean
