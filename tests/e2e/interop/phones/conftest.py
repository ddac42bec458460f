"""Phones that nobody here wrote, at a PBX of ours, which is Kamailio; or a word why not."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from eslbot.sim.bot import BotCall
from tests.e2e.interop.phones.baresip import Baresip
from tests.e2e.interop.phones.linphone import Linphone
from tests.e2e.interop.phones.pbx import PhonePbx
from tests.e2e.interop.phones.phone import Phone
from tests.support.kamailio import MISSING, WHY_MISSING
from tests.support.lab import Lab

HERE = Path(__file__).parent
KINDS: dict[str, type[Phone]] = {"baresip": Baresip, "linphone": Linphone}
#: A phone's folder, its PBX, and what is its own, by name.
Making = Callable[..., Phone]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if MISSING:
        for item in items:
            if HERE in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=WHY_MISSING))


def phones(*names: str) -> list[object]:
    """Parameters of a test: the phones of these names, or all; one that is missing is skipped."""
    return [_param(name) for name in names or KINDS]


def _param(name: str) -> object:
    kind = KINDS[name]
    missing = shutil.which(kind.program) is None
    why = f"{kind.program} is not installed (apt-get install {kind.package}, or scripts/prepare test --sipp)"
    return pytest.param(name, marks=pytest.mark.skipif(missing, reason=why))


@pytest.fixture(scope="module")
def pbxs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Lab], PhonePbx]]:
    """The PBX at a laboratory's switch, made when it is first asked for."""
    made: dict[str, PhonePbx] = {}
    with ExitStack() as stack:

        def of(lab: Lab) -> PhonePbx:
            kind = "stand-in" if lab.real_switch is None else "freeswitch"
            if kind not in made:
                folder = tmp_path_factory.mktemp(f"phones-{kind}")
                made[kind] = stack.enter_context(PhonePbx(folder, lab.sip, lab.tenants["phones"].id))
            return made[kind]

        yield of


@pytest.fixture
def pbx(lab: Lab, pbxs: Callable[[Lab], PhonePbx]) -> PhonePbx:
    return pbxs(lab)


@pytest.fixture
def making(pbx: PhonePbx, tmp_path: Path) -> Iterator[Making]:
    """Makes phones that run, and are ended behind the test: ``making("baresip", transport="tcp")``."""
    with ExitStack() as stack:

        def make(name: str, **how: object) -> Phone:
            folder = tmp_path / f"{name}-{len(list(tmp_path.iterdir()))}"
            return stack.enter_context(KINDS[name](folder, pbx, **how))  # type: ignore[arg-type]

        yield make


def bot_of(lab: Lab, crt: str) -> BotCall:
    """The bot's side of a call."""
    return lab.bot.wait_for_call(lambda bot: bot.headers.get("X-CRT-Object-ID") == crt)
