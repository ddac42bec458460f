"""Whole calls whose FreeSWITCH, module or bot says what none of them should; in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import gevent
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from tests.component.esl.conftest import House
from tests.hostile.parsers import EVENTS
from tests.support.ameyo_server import AmeyoServer
from tests.support.mutation import KINDS, RANGE, Edit, mutated
from tests.support.peer import bounded
from tests.support.switch import WORKSPACE

#: Lines that tell of a fault of ours.
FAULTS = frozenset({"call_failed", "talk_failed", "notification_failed", "greenlet_failed"})
#: Events without the frame around them, which is put back: what is inside is hostile.
INNER = tuple(event.partition(b"\n\n")[2] for event in EVENTS)

_numbers = st.integers(0, RANGE - 1)
_edits = st.lists(st.builds(Edit, st.integers(0, len(KINDS) - 1), _numbers, _numbers, _numbers), max_size=4)
_said = st.lists(st.tuples(st.integers(0, len(INNER) - 1), _edits), max_size=6)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with AmeyoServer() as ameyo:
        yield House(ameyo, tmp_path_factory.mktemp("state"))


@pytest.mark.parametrize("framed", [True, False], ids=["events", "bytes"])
def test_whatever_is_said_in_a_call_it_ends_with_its_bye_and_no_fault_of_ours(
    house: House, framed: bool
) -> None:
    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(_said)
    def under(said: list[tuple[int, list[Edit]]]) -> None:
        house.channels.clear()
        house.greenlets.clear()
        with bounded(20), capture_logs() as lines:
            channel = house.talking()
            with suppress(ConnectionError):  # a stream that is none is given up
                for which, edits in said:
                    inner = mutated((INNER if framed else EVENTS)[which], edits, INNER)
                    head = b"Content-Length: %d\nContent-Type: text/event-plain\n\n" % len(inner)
                    channel.peer.send(head + inner if framed else inner)
                channel.hang_up()
            gevent.joinall(house.greenlets, timeout=10, raise_error=True)
        assert all(greenlet.ready() for greenlet in house.greenlets), channel.story
        assert [line for line in lines if line["event"] in FAULTS] == []
        assert (house.controller.calls, house.counts.total(WORKSPACE)) == (set(), 0)
        assert channel.violations == []

    under()
