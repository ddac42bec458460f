"""What a running FreeSWITCH says of itself: asked once, before the checks, which only read it.

Nothing here changes anything: ``status``, ``version``, ``fsctl …`` without a value, ``global_getvar``,
``module_exists``, ``acl``, ``xml_locate``, ``sofia xmlstatus``, ``strmicroepoch``.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from eslbot.config.model import IP, Config, Network
from eslbot.doctor.rendering import Rendering, settings
from eslbot.esl.errors import CommandFailed, UnsafeArgument
from eslbot.esl.inbound import InboundClient

#: The profile and the ACL that ``eslbot conf`` writes.
PROFILE = "ameyo"
ACL = "ameyo"

#: In the order a call needs them. mod_tone_stream only where a hold_sound is "tone".
MODULES = (
    "mod_commands",
    "mod_dptools",
    "mod_dialplan_xml",
    "mod_sndfile",
    "mod_tone_stream",
    "mod_audio_stream",
    "mod_event_socket",
    "mod_sofia",
)
_QUESTIONS = (
    "status",
    "version",
    "fsctl max_sessions",
    "fsctl sps",
    "fsctl pause_check inbound",
    "fsctl shutdown_check",
    "uuid_audio_stream",
    "sofia status",
)
_CONFIGURATIONS = ("sofia.conf", "switch.conf", "acl.conf")
_VARIABLES = ("log_dir", "db_dir", "local_ip_v4", "api_on_startup")
#: No more sources are asked about: each is a command.
MAX_ASKED = 256
#: Addresses that belong to nobody (RFC 5737, 2544), for "and a stranger?".
STRANGERS = tuple(ip_address(ip) for ip in ("198.51.100.77", "203.0.113.77", "192.0.2.77", "198.18.0.77"))


@dataclass(frozen=True)
class SwitchState:
    """FreeSWITCH as it was when it was asked. What it did not answer is None, empty or missing.

    ``answers`` are by question.
    """

    answers: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    modules: Mapping[str, bool] = field(default_factory=dict)
    #: Of the profile as it runs (``sofia xmlstatus``); None where there is none of that name.
    profile: Mapping[str, str] | None = None
    #: The configurations it holds now: those of its last start or ``reloadxml``.
    configurations: Mapping[str, Element] = field(default_factory=dict)
    contexts: Mapping[str, Element] = field(default_factory=dict)
    #: Answers of ``acl``, by list and address.
    admitted: Mapping[tuple[str, IP], bool] = field(default_factory=dict)
    #: Seconds that its clock is ahead of ours, and the seconds that asking took.
    clock_ahead: float | None = None
    asking_took: float = 0.0

    @property
    def profile_settings(self) -> dict[str, str]:
        """The ``<param>`` of our profile."""
        return settings(profile_of(self.configurations.get("sofia.conf")))

    @property
    def core_settings(self) -> dict[str, str]:
        """The ``<param>`` of switch.conf."""
        return settings(self.configurations.get("switch.conf"))

    def number(self, question: str) -> int | None:
        """The number at the end of an answer, such as of ``fsctl max_sessions``."""
        match = re.search(r"(\d+)\s*$", self.answers.get(question, ""))
        return int(match[1]) if match else None


def profile_of(sofia: Element | None) -> Element | None:
    """Our profile in ``sofia.conf``."""
    if sofia is None:
        return None
    return next((found for found in sofia.iter("profile") if found.get("name") == PROFILE), None)


def ask(client: InboundClient, config: Config) -> SwitchState:
    """Ask everything. Raises OSError and EslError where the connection does not hold."""
    answers = {question: answer for question in _QUESTIONS if (answer := _ask(client, question)) is not None}
    variables = {
        name: value
        for name in _VARIABLES
        if (value := _ask(client, f"global_getvar {name}")) and not value.startswith("-ERR")
    }
    configurations = {
        name: found
        for name in _CONFIGURATIONS
        if (found := _xml(client, f"xml_locate configuration configuration name {name}")) is not None
    }
    contexts = {
        name: found
        for name in Rendering(config, variables).contexts
        if (found := _xml(client, f"xml_locate dialplan context name {name}")) is not None
    }
    status = _xml(client, f"sofia xmlstatus profile {PROFILE}")
    info = status.find("profile-info") if status is not None else None
    before = time.time()
    stamp = _ask(client, "strmicroepoch") or ""
    after = time.time()
    return SwitchState(
        answers=answers,
        variables=variables,
        modules={
            name: answer == "true"
            for name in MODULES
            if (answer := _ask(client, f"module_exists {name}")) is not None
        },
        profile={child.tag: (child.text or "").strip() for child in info} if info is not None else None,
        configurations=configurations,
        contexts=contexts,
        admitted=_admitted(client, config, configurations.get("sofia.conf")),
        clock_ahead=int(stamp) / 1e6 - (before + after) / 2 if stamp.isdecimal() else None,
        asking_took=after - before,
    )


def lists_of(profile: Element | None) -> list[str]:
    """The ACLs that a profile applies to INVITEs; with several, one that admits is enough."""
    if profile is None:
        return []
    return [
        node.get("value", "")
        for node in profile.iter("param")
        if node.get("name", "").lower() == "apply-inbound-acl" and node.get("value")
    ]


def stranger(networks: tuple[Network, ...]) -> IP | None:
    """An address that no source holds."""
    return next((ip for ip in STRANGERS if not any(ip in network for network in networks)), None)


def _admitted(client: InboundClient, config: Config, sofia: Element | None) -> dict[tuple[str, IP], bool]:
    asked: list[IP] = []
    for network in config.sip_peers[:MAX_ASKED]:
        asked += dict.fromkeys((network[0], network[-1]))
    if (foreign := stranger(config.sip_peers)) is not None:
        asked.append(foreign)
    answers: dict[tuple[str, IP], bool] = {}
    for name in lists_of(profile_of(sofia))[:4]:
        for ip in asked:
            if (answer := _ask(client, f"acl {ip} {name}")) is not None:
                answers[name, ip] = answer == "true"
    return answers


def _ask(client: InboundClient, command: str) -> str | None:
    """None where FreeSWITCH has no such command: a module is missing, and that is told of the module."""
    try:
        return client.api(command)
    except (CommandFailed, UnsafeArgument):
        return None


def _xml(client: InboundClient, command: str) -> Element | None:
    text = _ask(client, command)
    # Expat expands entities that a document declares itself; FreeSWITCH's never does.
    if text is None or not text.startswith("<") or "<!DOCTYPE" in text or "<!ENTITY" in text:
        return None
    if text.startswith("<?xml"):
        text = text.partition("?>")[2].strip()
    try:
        return ElementTree.fromstring(text)
    except ElementTree.ParseError:
        return None
