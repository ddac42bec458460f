"""The table of checks, and how they run: at the same time, unless one needs another's result."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from eslbot.config import Config, ConfigError, load
from eslbot.config.secrets import secrets_of
from eslbot.doctor.checks import (
    acl,
    ameyo,
    audio_stream,
    bot,
    clock,
    configuration,
    core,
    dialplan,
    egress,
    event_socket,
    hang_ups,
    identity,
    ledger,
    limits,
    nat,
    profile,
    recordings,
    recovery,
    relay,
    rtp,
    secret_files,
    service,
    silence,
    switch_user,
)
from eslbot.doctor.findings import Finding, Severity, error, late, unknown
from eslbot.doctor.host import Process, User, listener
from eslbot.doctor.site import Site
from eslbot.freeswitch.password import CONF_DIR
from eslbot.runtime.parallel import together
from eslbot.telemetry import redaction

#: Seconds that one step over the network may take at most.
STEP_TIMEOUT = 5.0

CONFIGURATION = "configuration"
EVENT_SOCKET = "event-socket"


@dataclass(frozen=True, slots=True)
class Check:
    """One row of the table. ``needs_switch``: it reads what FreeSWITCH told of itself.

    ``after_switch``: it says more with that, and something without.
    """

    name: str
    title: str
    run: Callable[[Site], Iterable[Finding]]
    needs_switch: bool = True
    after_switch: bool = True


def _independent(name: str, title: str, run: Callable[[Site], Iterable[Finding]]) -> Check:
    return Check(name, title, run, needs_switch=False, after_switch=False)


#: In the order of the report; ``configuration`` and ``event-socket`` come before them.
CHECKS = (
    _independent("service", "eslbot answers", service.running),
    _independent("identity", "the key that signs calls", identity.key),
    Check("freeswitch", "FreeSWITCH runs and takes calls", core.running),
    Check("modules", "FreeSWITCH's modules are loaded", core.modules),
    Check("audio-stream", "mod_audio_stream takes streams", audio_stream.command),
    Check("profile", "the SIP profile", profile.running),
    Check("acl", "who may call", acl.inbound),
    Check("hang-ups", "nothing sends BYE to a living call", hang_ups.settings),
    Check("recovery", "FreeSWITCH comes back when it dies", recovery.prepared, needs_switch=False),
    Check("nat", "the announced addresses", nat.announced),
    Check("rtp", "the RTP ports", rtp.ports),
    Check("silence", "RTP goes on while the bot is silent", silence.sent),
    Check("dialplan", "the dialplan in force is the rendered one", dialplan.loaded),
    Check("controllers", "FreeSWITCH calls this eslbot", service.controllers),
    _independent("switch-user", "who of this host may speak to eslbot", switch_user.matches),
    Check("sessions", "FreeSWITCH's limits and its logging", core.limits),
    _independent("relay", "the relay answers mod_audio_stream", relay.answers),
    _independent("lines", "the directory of the line files", relay.lines),
    _independent("inotify", "what the relay may watch", relay.inotify),
    Check("secret-files", "nobody else reads secrets and records", secret_files.private, needs_switch=False),
    _independent("open-files", "file descriptors", limits.descriptors),
    _independent("kernel", "the kernel's patience", limits.kernel),
    _independent("bot", "the bots take the upgrade", bot.connections),
    _independent("ameyo", "Ameyo: DNS and TLS", ameyo.endpoints),
    _independent("egress", "whom Ameyo sees", egress.addresses),
    Check("clock", "clocks", clock.skew, needs_switch=False),
    _independent("ledger", "the call ledger", ledger.recording),
    _independent("recordings", "recordings of calls", recordings.prepared),
    _independent("page", "the call page", service.page),
)
TITLES = {
    CONFIGURATION: "the configuration",
    EVENT_SOCKET: "FreeSWITCH's event socket",
    **{check.name: check.title for check in CHECKS},
}


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of one check."""

    name: str
    findings: list[Finding]
    seconds: float = 0.0

    @property
    def severity(self) -> Severity:
        """The worst of its findings."""
        return max((f.severity for f in self.findings), key=lambda s: s.rank, default=Severity.OK)


def _silent(name: str, what: str) -> None:
    """Shows no progress."""


@dataclass(frozen=True, slots=True)
class Request:
    """What the operator asks for. ``only``: names of checks, by default all. ``timeout``: seconds for all.

    ``progress`` is told the name of a check and ``begins`` or ``done``, from any thread.
    """

    path: Path
    only: Sequence[str] = ()
    timeout: float = 20.0
    user: str | None = None
    conf_dir: str | None = None
    progress: Callable[[str, str], None] = _silent


def examine(request: Request) -> list[Checked]:
    """Run the checks. Raises KeyError where there is no such user."""
    began = time.monotonic()
    chosen = frozenset(request.only or TITLES)
    user = User.named(request.user) if request.user else None
    try:
        config = load(request.path)
    except ConfigError as refused:
        return _without_configuration(request, chosen, refused)
    switch_process, service_process = listener(config.freeswitch.event_socket), listener(config.server.listen)
    site = Site(
        path=request.path,
        config=config,
        user=user or _user_of(service_process),
        freeswitch=switch_process,
        service=service_process,
        relay=listener(config.relay.listen),
        patience=min(STEP_TIMEOUT, request.timeout / 3),
        deadline=began + request.timeout,
        conf_dir=request.conf_dir or (switch_process and switch_process.argument("-conf")) or CONF_DIR,
    )
    redaction.protect(_secrets(config, site.conf_dir))
    checked = _run(site, chosen, request)
    if CONFIGURATION in chosen:
        checked.append(Checked(CONFIGURATION, list(configuration.warnings(request.path, config))))
    cleaned = [replace(c, findings=[f.cleaned() for f in c.findings]) for c in checked]
    order = list(TITLES)
    return sorted(cleaned, key=lambda c: order.index(c.name))


def _without_configuration(request: Request, chosen: frozenset[str], refused: ConfigError) -> list[Checked]:
    problems = [finding.cleaned() for finding in configuration.problems(request.path, refused)]
    rest = [name for name in TITLES if name in chosen and name != CONFIGURATION]
    cannot = "the configuration cannot be used"
    return [
        Checked(CONFIGURATION, problems),
        *(Checked(name, [unknown(TITLES[name], cannot, "mend `configuration` first")]) for name in rest),
    ]


def _run(site: Site, chosen: frozenset[str], request: Request) -> list[Checked]:
    wanted = [check for check in CHECKS if check.name in chosen]
    at_once = [check for check in wanted if not check.after_switch]
    later = [check for check in wanted if check.after_switch]
    jobs: list[Callable[[], list[Checked]]] = [partial(_all, site, at_once, request)]
    if later or EVENT_SOCKET in chosen:
        jobs.append(partial(_with_switch, site, later, request))
    checked: list[Checked] = []
    # A little longer than the jobs' own deadline, so that they can say what was late.
    for result in together(jobs, site.deadline + 0.5):
        if result.error is not None:
            raise result.error
        checked += result.value or []
    expected = [check.name for check in wanted] + ([EVENT_SOCKET] if len(jobs) > 1 else [])
    done = {c.name for c in checked}
    checked += [Checked(n, [late(TITLES[n])], request.timeout) for n in expected if n not in done]
    # Who did not ask for the event socket only hears of it where it is the reason for the rest.
    return [c for c in checked if c.name in chosen or c.severity.rank > Severity.OK.rank]


def _with_switch(site: Site, checks: Sequence[Check], request: Request) -> list[Checked]:
    """The event socket, and then what needs its answers."""
    request.progress(EVENT_SOCKET, "begins")
    began = time.monotonic()
    switch_state, findings = event_socket.examine(site.config, site.conf_dir, site.patience)
    request.progress(EVENT_SOCKET, "done")
    socket_checked = Checked(EVENT_SOCKET, findings, time.monotonic() - began)
    ready = [check for check in checks if switch_state is not None or not check.needs_switch]
    unready = [check for check in checks if check not in ready]
    return [
        socket_checked,
        *_all(replace(site, switch_state=switch_state), ready, request),
        *(Checked(check.name, [event_socket.not_asked(check.title)]) for check in unready),
    ]


def _all(site: Site, checks: Sequence[Check], request: Request) -> list[Checked]:
    def one(check: Check) -> list[Finding]:
        request.progress(check.name, "begins")
        return list(check.run(site))

    results = together(
        [partial(one, check) for check in checks],
        site.deadline,
        done=lambda number: request.progress(checks[number].name, "done"),
    )
    checked = []
    for check, result in zip(checks, results, strict=True):
        findings = result.value
        if result.error is not None:
            findings = [_broken(result.error)]
        elif findings is None:
            findings = [late(check.title)]
        checked.append(Checked(check.name, findings, result.seconds))
    return checked


def _broken(failed: BaseException) -> Finding:
    return error(
        "doctor itself",
        f"{type(failed).__name__}: {failed}",
        "this check has a defect, and nothing is known of what it looks at",
        "report it with this line",
    )


def _user_of(process: Process | None) -> User:
    uid = process.uid if process is not None else None
    if uid is None:
        uid = os.geteuid()
    try:
        return User.numbered(uid)
    except KeyError:  # a container's: it has no name, and no groups that we know
        return User(str(uid), uid, os.getegid(), frozenset({os.getegid()}))


def _secrets(config: Config, conf_dir: str) -> frozenset[str]:
    """Everything that must not be seen: no finding quotes one, but others' answers may."""
    password = event_socket.password_of(config, conf_dir)
    return secrets_of(config) | (frozenset() if isinstance(password, Finding) else {password.reveal()})
