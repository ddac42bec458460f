"""Kamailio as the PBX that phones call through, and what of their signalling went by."""

from __future__ import annotations

import re
import shutil
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from eslbot.sim.addresses import colon, free_port
from eslbot.sim.switch.sip_message import SipMessage
from tests.e2e.interop.pbx import DID, PATIENCE
from tests.support.kamailio import KamailioProcess

#: Where the switch sees the calls come from, whatever the phones' addresses; nobody else in the tests has it.
PBX = "127.0.0.40"


@dataclass(frozen=True)
class Traced:
    """A SIP message that came to the PBX or went from it; addresses are ``(ip, port)``."""

    source: tuple[str, int]
    destination: tuple[str, int]
    message: SipMessage


class PhonePbx(KamailioProcess):
    """The PBX of one workspace at one switch; a context manager.

    Phones that dial ``sip:CRT@address`` call as ``"DID|CRT"``; ``traced`` is all SIP that went by, in order.
    """

    def __init__(self, folder: Path, switch: tuple[str, int], workspace: str) -> None:
        super().__init__(folder, folder.absolute() / "kamailio.cfg")
        self.address, self.switch, self.workspace = (PBX, free_port(PBX)), switch, workspace
        self.traced: list[Traced] = []
        self._changed = threading.Condition()
        self._trace = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._trace.bind(("127.0.0.1", 0))
        self._reader: threading.Thread | None = None

    def render(self) -> None:
        """Our kamailio.cfg, and what is this PBX's own beside it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(__file__).parent / "kamailio.cfg", self.configuration)
        own = {
            "SWITCH": colon(self.switch),
            "WORKSPACE": self.workspace,
            "DID": DID,
            "TRACE": colon(self._trace.getsockname()),
        }
        lines = [f'#!substdef "!{name}!{value}!"' for name, value in own.items()]
        lines += [f"listen={transport}:{colon(self.address)}" for transport in ("udp", "tcp")]
        # The switch knows the PBX by its address, on connections that the PBX opens, too.
        lines.append(f"tcp_source_ipv4={PBX}")
        (self.folder / "here.cfg").write_text("\n".join([*lines, ""]))

    def ready(self) -> bool:
        """Whether it answers us: phones it answers before."""
        return bool(self.command("core.version"))

    def start(self) -> None:
        """Run it, and read what it traces."""
        self._reader = threading.Thread(target=self._read, name="trace of the phones' PBX", daemon=True)
        self._reader.start()
        super().start()

    def stop(self) -> None:
        """End it and its trace."""
        super().stop()
        if self._reader is not None:
            self._trace.sendto(b"", self._trace.getsockname())
            self._reader.join(PATIENCE)
            self._trace.close()
            self._reader = None

    # -- calls --------------------------------------------------------------------------------------------

    def call(self, crt: str, number: int = 1) -> PhoneCall:
        """The first call of this CRT Object ID, or a later one, when its INVITE has gone to the switch.
        Raises TimeoutError."""

        def found() -> list[SipMessage]:
            invites = [t.message for t in self.traced if self._is_invite(t, crt)]
            return list({invite.need("Call-ID"): invite for invite in reversed(invites)}.values())[::-1]

        self.wait(lambda: len(found()) >= number)
        return PhoneCall(self, crt, found()[number - 1])

    def wait(self, condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
        """Wait until it holds; it is asked whenever something went by. Raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(condition, seconds):
                last = [t.message.method or t.message.status for t in self.traced[-8:]]
                raise TimeoutError(f"not within {seconds:g} s; the last messages were {last}")

    def _is_invite(self, traced: Traced, crt: str) -> bool:
        message = traced.message
        return (
            message.method == "INVITE"
            and traced.destination == self.switch
            and f"|{crt}" in message.need("From").partition("<")[0]
        )

    def _read(self) -> None:
        while data := self._trace.recv(65536):
            traced = _hep(data)
            if traced is not None:
                with self._changed:
                    self.traced.append(traced)
                    self._changed.notify_all()


@dataclass(frozen=True)
class PhoneCall:
    """One call as the PBX sees it; ``invite`` is what it sent to the switch."""

    pbx: PhonePbx
    crt: str
    invite: SipMessage

    @property
    def id(self) -> str:
        """Its Call-ID."""
        return self.invite.need("Call-ID")

    def messages(self) -> list[Traced]:
        """All that went by of it so far, on both of the PBX's sides."""
        return [traced for traced in list(self.pbx.traced) if traced.message.get("Call-ID") == self.id]

    def to_switch(self, method: str) -> list[SipMessage]:
        """The requests of this method that went to the switch, the repeated ones too."""
        return [
            traced.message
            for traced in self.messages()
            if traced.message.method == method and traced.destination == self.pbx.switch
        ]

    def from_switch(self, method: str) -> list[SipMessage]:
        """The requests of this method that the switch has sent."""
        return [
            traced.message
            for traced in self.messages()
            if traced.message.method == method and traced.source == self.pbx.switch
        ]

    def answer(self, to: SipMessage) -> SipMessage:
        """The switch's final response to a request. Raises TimeoutError."""

        def found() -> list[SipMessage]:
            return [
                traced.message
                for traced in self.messages()
                if traced.source == self.pbx.switch
                and traced.message.status >= 200
                and traced.message.cseq() == to.cseq()
            ]

        self.pbx.wait(lambda: bool(found()))
        return found()[0]

    def last(self, method: str, count: int = 1) -> SipMessage:
        """The latest request of this method to the switch, when there were so many. Raises TimeoutError."""

        def found() -> list[SipMessage]:
            by_number = {message.cseq()[0]: message for message in self.to_switch(method)}
            return list(by_number.values())

        self.pbx.wait(lambda: len(found()) >= count)
        return found()[-1]

    def end(self) -> None:
        """The PBX ends it: Kamailio's BYE, to both sides, which the switch accepts. Raises TimeoutError."""
        tags = [re.search(r";tag=([^;\s>]+)", self._established().need(name)) for name in ("From", "To")]
        assert all(tags)
        self.last("ACK")  # or Kamailio has it for a call that is not up
        # Behind "s:" a tag of digits alone is a string, and no number, which Kamailio refuses.
        names = [f"s:{name}" for name in (self.id, *(tag[1] for tag in tags if tag))]
        told = self.pbx.command("dlg.terminate_dlg", *names)
        try:
            bye = self.last("BYE")
        except TimeoutError as error:
            raise TimeoutError(f"Kamailio sends no BYE: {told}{self.pbx.log()[-1000:]}") from error
        assert self.answer(bye).status == 200, self.answer(bye)

    def _established(self) -> SipMessage:
        answer = self.answer(self.invite)
        assert answer.status == 200, answer
        return answer


def _hep(data: bytes) -> Traced | None:
    """HEP 1: version, length, family, protocol, two ports, two addresses; then the message."""
    if len(data) < 16 or data[:1] != b"\x01":
        return None
    ports = [int.from_bytes(data[at : at + 2], "big") for at in (4, 6)]
    addresses = [str(IPv4Address(data[at : at + 4])) for at in (8, 12)]
    source, destination = zip(addresses, ports, strict=True)
    return Traced(source, destination, SipMessage.parse(data[data[1] :]))
