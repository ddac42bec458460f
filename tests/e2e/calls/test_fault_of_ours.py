"""A fault of eslbot's own in mid-call: the customer is handed off, and the bot hears nothing any more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from eslbot.sim.lab import Tenant
from eslbot.sim.pbx import Pbx
from tests.e2e.calls.conftest import one_kind
from tests.e2e.calls.test_call import DID, accepted, logged
from tests.e2e.calls.test_unkind_bots import nothing_is_heard
from tests.support.lab import Lab

#: Every mark of a bot's is too much for this controller.
FAULT = """
import importlib.abc
import importlib.util
import sys


class Faulty(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "eslbot.calls.bot.leg":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            on_news = module.BotLeg._on_news
            module.BotLeg._on_news = lambda leg, news, age: (
                news.what == "mark" and 1 / 0 or on_news(leg, news, age)
            )

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Faulty())
"""


@pytest.fixture(scope="module", params=one_kind())
def faulty(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder: Path = tmp_path_factory.mktemp(f"faulty-{request.param}")
    (folder / "sitecustomize.py").write_text(FAULT)
    within = {"127.0.0.1": ["env", f"PYTHONPATH={folder}"]}
    with Lab(folder, [Tenant("hold", "hold")], switch=request.param, within=within) as lab:
        yield lab


def test_the_bot_does_not_listen_on(faulty: Lab, crt: str) -> None:
    with Pbx(faulty.sip) as pbx:
        ringing = pbx.call(DID, crt, faulty.tenants["hold"].id)
        bot = faulty.bot.wait_for_call()
        bot.wait(lambda c: bool(c.said) and c.audio_frames > 0)
        bot.mark("too much")
        assert faulty.ameyo.wait_accepted(crt, 20)
        nothing_is_heard(faulty, crt)
        bot.wait_closed()
        assert bot.close_code == 1000
        assert [request.properties["outcome"] for request in accepted(faulty, crt)] == ["internal_error"]
        assert logged(faulty, crt, "talk_failed")
        ringing.hang_up()
        assert ringing.wait().completed
