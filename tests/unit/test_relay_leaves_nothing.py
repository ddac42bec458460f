"""Calls that end in every way there is, in one worker: none leaves a socket, a file, a task or itself."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import mmap
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from eslbot.caller.invite import Invite
from eslbot.config.loader import from_tree
from eslbot.recording.recorder import Recorder
from eslbot.relay import call as relay_call
from eslbot.relay import control, dialler, stream_server, worker
from eslbot.relay.call import RelayCall
from eslbot.relay.control import Order
from eslbot.relay.dialler import BotSocket
from eslbot.relay.line import Line
from eslbot.relay.line.read_counter import ReadCounter
from eslbot.relay.playout_delay import PlayoutDelay
from eslbot.relay.stream_server import ModuleStream
from eslbot.relay.worker import ACCEPTING, Parts, Worker, shared_socket
from tests.support.relays import ACME, configuration
from tests.unit.test_relay_dialler import accepted, frame, request
from tests.unit.test_relay_stream_server import SIGNER, UPGRADE, Caller, identity

#: Calls of each kind; a run by hand may have thousands.
EACH = int(os.environ.get("ESLBOT_TEST_CALLS_OF_EACH_KIND", "3"))
SOON = 10.0
TONE = b"\x00\x10" * 160


class Stage:
    """A worker, and a bot that does what a call's CRT Object ID says."""

    def __init__(self, folder: Path) -> None:
        self.lines = folder / "lines"
        self.lines.mkdir()
        self.tree = configuration(folder, 1)

    async def __aenter__(self) -> Stage:
        self.bots = await asyncio.start_server(self._bot, "127.0.0.1", 0)
        config = from_tree(self.tree, {})
        url = f"ws://127.0.0.1:{self.bots.sockets[0].getsockname()[1]}/"
        acme = config.workspaces[ACME]
        acme = replace(acme, bot=replace(acme.bot, urls=(url,), reconnect=True, connect_timeout=0.5))
        listening = shared_socket("127.0.0.1", 0)
        self.port = listening.getsockname()[1]
        state = mmap.mmap(-1, 1)
        self.lifeline = os.pipe()
        self.worker = Worker(
            replace(config, workspaces={ACME: acme}),
            SIGNER,
            listening,
            state,
            self.lifeline[0],
            60.0,
            Parts(RelayCall, ReadCounter, PlayoutDelay, Recorder),
        )
        self.task = asyncio.create_task(self.worker.run())
        while state[0] != ACCEPTING:
            await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.worker.end()
        await asyncio.wait_for(self.task, SOON)
        self.bots.close()
        for descriptor in self.lifeline:
            os.close(descriptor)

    # -- the bot ------------------------------------------------------------------------------------------

    async def _bot(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            headers = await request(reader)
            does = headers["x-crt-object-id"]
            if does == "refuses":
                writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            elif does == "is slow":
                await asyncio.sleep(0.05)  # whoever has dialled is gone by then
                writer.write(accepted(headers))
            else:
                writer.write(accepted(headers) + frame(TONE) + self._says(does))
            if does == "breaks":
                writer.transport.abort()
            while await reader.read(65536):
                pass
        writer.close()

    @staticmethod
    def _says(does: str) -> bytes:
        match does:
            case "ends":
                return frame(json.dumps({"type": "end"}).encode(), 1)
            case "closes":
                return frame(struct.pack("!H", 1000), 8)
            case "floods":
                return frame(b"{}", 1) * 7000
            case "is wrong":
                return frame(b"x", 3)
        return b""

    # -- the module ---------------------------------------------------------------------------------------

    async def _ask(self, invite: Invite, path: str = "/", port: int | None = None) -> Caller:
        caller = Caller(*await asyncio.open_connection("127.0.0.1", port or self.port))
        lines = [f"GET {path} HTTP/1.1", "Host: relay", *UPGRADE, *identity(invite), f"{control.PART}: new"]
        caller.writer.write("\r\n".join([*lines, "", ""]).encode())
        return caller

    async def prepare(self, invite: Invite) -> int:
        caller = await self._ask(invite, "/prepare")
        assert b" 200 " in await caller.head()
        url = (await caller.rest()).decode()
        caller.writer.close()
        return int(url.rstrip("/").rpartition(":")[2])

    async def stream(self, invite: Invite, port: int | None = None) -> Caller:
        caller = await self._ask(invite, port=port)
        assert b" 101 " in await caller.head()
        return caller

    async def news(self, caller: Caller, *wanted: str) -> None:
        """Read until it was one of these."""
        while True:
            first, size = await asyncio.wait_for(caller.reader.readexactly(2), SOON)
            if size == 126:
                (size,) = struct.unpack("!H", await caller.reader.readexactly(2))
            text = await caller.reader.readexactly(size)
            assert first & 0xF == 1, text
            if json.loads(text)["news"] in wanted:
                return

    async def hangs_up(self, caller: Caller) -> None:
        caller.send(struct.pack("!H", 1000), 8)
        await asyncio.wait_for(caller.reader.read(), SOON)
        caller.writer.close()

    async def goes_away(self, caller: Caller) -> None:
        linger = struct.pack("ii", 1, 0)
        caller.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        caller.writer.close()

    # -- what calls do ------------------------------------------------------------------------------------

    async def prepared_and_never_answered(self, invite: Invite) -> None:
        await self.prepare(invite)
        await self.prepare(invite)

    async def prepared_and_answered(self, invite: Invite) -> None:
        caller = await self.stream(invite, await self.prepare(invite))
        caller.send(TONE)
        await self.news(caller, "connected", "ended")
        await self.hangs_up(caller)

    async def hung_up_at_once(self, invite: Invite) -> None:
        await self.hangs_up(await self.stream(invite))

    async def heard_to_the_end(self, invite: Invite) -> None:
        caller = await self.stream(invite)
        caller.send(TONE)
        await self.news(caller, "connected", "ended")
        caller.send(control.order(Order.HELLO, hold=True).encode(), 1)
        await self.news(caller, "state")
        await self.hangs_up(caller)

    async def stopped(self, invite: Invite) -> None:
        caller = await self.stream(invite)
        caller.send(control.order(Order.STOP, reason="max_duration").encode(), 1)
        await self.hangs_up(caller)

    async def broken(self, invite: Invite) -> None:
        await self.goes_away(await self.stream(invite))

    async def taken_over(self, invite: Invite) -> None:
        first = await self.stream(invite, await self.prepare(invite))
        await self.hangs_up(await self.stream(invite, self.port))
        await self.goes_away(first)

    async def without_room(self, invite: Invite) -> None:
        blocked = self.lines / f"{invite.call_id}.line"
        blocked.mkdir()
        await self.prepare(invite)
        await self.hangs_up(await self.stream(invite))
        blocked.rmdir()


CALLERS: list[Callable[[Stage, Invite], Awaitable[None]]] = [
    Stage.prepared_and_never_answered,
    Stage.prepared_and_answered,
    Stage.hung_up_at_once,
    Stage.heard_to_the_end,
    Stage.stopped,
    Stage.broken,
    Stage.taken_over,
    Stage.without_room,
]
BOTS = ["speaks", "ends", "closes", "breaks", "refuses", "is slow", "floods", "is wrong"]


def alive() -> list[object]:
    gc.collect()
    kinds = (RelayCall, ModuleStream, BotSocket, Line)
    return [thing for thing in gc.get_objects() if isinstance(thing, kinds)]


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.slow
def test_no_call_leaves_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "STREAM_TIMEOUT", 0.3)
    monkeypatch.setattr(relay_call, "STREAM_TIMEOUT", 0.1)
    monkeypatch.setattr(stream_server, "CLOSE_TIMEOUT", 0.1)
    monkeypatch.setattr(dialler, "CLOSE_TIMEOUT", 0.1)

    async def story(stage: Stage) -> None:
        async def all_kinds(number: int) -> None:
            for does in BOTS:
                await asyncio.gather(
                    *(
                        caller(
                            stage,
                            Invite(
                                f"{number}-{i}-{BOTS.index(does)}",
                                "00919990152080",
                                does,
                                ACME,
                                "127.0.0.1",
                                "040",
                                "bot",
                            ),
                        )
                        for i, caller in enumerate(CALLERS)
                    )
                )

        async def over() -> None:
            async with asyncio.timeout(SOON):
                while stage.worker.calls or descriptors() > before or len(asyncio.all_tasks()) > tasks:
                    await asyncio.sleep(0.02)

        before, tasks = descriptors() + 8, len(asyncio.all_tasks())  # what is made once is made now
        await all_kinds(0)
        await over()
        before = descriptors()
        for number in range(1, EACH):
            await all_kinds(number)
        await over()
        assert stage.worker._awaited == {}
        assert list(stage.lines.iterdir()) == []
        async with asyncio.timeout(SOON):
            while left := alive():
                await asyncio.sleep(0.05)
                del left

    async def main() -> None:
        async with asyncio.timeout(20 * EACH), Stage(tmp_path) as stage:
            await story(stage)

    asyncio.run(main())
