"""eslbot itself: whether it answers, whether FreeSWITCH may and does call it, and who may see its page."""

from __future__ import annotations

import http.client
import socket
import time
from collections import Counter
from collections.abc import Iterator

from eslbot.config.model import Address
from eslbot.doctor.findings import Finding, error, note, ok, warning
from eslbot.doctor.host import is_own
from eslbot.doctor.rendering import actions
from eslbot.doctor.site import Site

#: Seconds behind which what a worker says of FreeSWITCH is not what it knew before (server/probes.py: FRESH).
OLD = 1.2
#: Bytes of an answer: `/metrics` of a service with many workspaces has a megabyte.
MAX_BODY = 16 * 1024 * 1024


def _start(site: Site) -> str:
    return f"systemctl start eslbot (why it ended: {site.log})"


def running(site: Site) -> Iterator[Finding]:
    """The event-socket listener accepts, a worker says that it is ready, and the page process answers."""
    listen = site.config.server.listen.from_own_host
    try:
        socket.create_connection(listen.pair, site.patience).close()
    except OSError as failed:
        yield error(
            f"server.listen {listen}",
            f"nobody accepts: {failed.strerror or failed}",
            "every new call is refused with 503, and customers of living ones hear silence",
            _start(site),
        )
    else:
        yield ok(f"server.listen {listen}", "accepts connections")
    yield _worker(site)
    yield _page(site)


def _worker(site: Site) -> Finding:
    looked_at = f"http://{site.config.server.health}/readyz"
    try:
        status, body = get(site.config.server.health, "/readyz", site.patience)
        if b"switch_gone" in body:
            time.sleep(OLD)
            status, body = get(site.config.server.health, "/readyz", site.patience)
    except (OSError, http.client.HTTPException) as failed:
        return error(
            looked_at, f"no answer: {failed}", "the service is not up, or its workers hang", _start(site)
        )
    if status == 200:
        return ok(looked_at, "ready")
    if status == 503 and b"switch_gone" in body:
        return error(
            looked_at,
            "FreeSWITCH's event socket does not greet",
            "no call comes in, or nobody can tell whether one that was lost lives",
            "systemctl status freeswitch; see what `event-socket` says above",
        )
    if status == 503:
        return warning(
            looked_at,
            "draining",
            "a worker takes no new calls: it is about to leave",
            "wait for the reload or stop to end; if it does not: systemctl restart eslbot",
        )
    return error(looked_at, f"HTTP {status}", "that is not eslbot", "look who has server.health's port")


def _page(site: Site) -> Finding:
    web = site.config.web.listen.from_own_host
    looked_at = f"http://{web}/healthz"
    why = "calls go on, but nobody sees them: no page, no metrics, and the ledger waits in the journals"
    remedy = "the service starts it: systemctl status eslbot, and its log has lines that begin with page_"
    try:
        status, _ = get(web, "/healthz", site.patience)
    except (OSError, http.client.HTTPException) as failed:
        return error(looked_at, f"no answer: {failed}", why, remedy)
    if status == 200:
        return ok(looked_at, "the page process answers")
    return error(looked_at, f"HTTP {status}", "that is not eslbot", "look who has web.listen's port")


def get(address: Address, path: str, patience: float) -> tuple[int, bytes]:
    """Status and body, of which no more is read than ``MAX_BODY``. Raises OSError, HTTPException."""
    connection = http.client.HTTPConnection(*address.pair, timeout=patience)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read(MAX_BODY)
    finally:
        connection.close()


def controllers(site: Site) -> Iterator[Finding]:
    """Whom FreeSWITCH calls: the configured controllers, this eslbot too, which lets FreeSWITCH in."""
    config = site.config
    wanted = [f"{address.ip}:{address.port}" for address in config.freeswitch.controllers]
    own = [a for a in config.freeswitch.controllers if _is_me(a, config.server.listen)]
    if not own:
        yield warning(
            "freeswitch.controllers",
            f"{', '.join(wanted)}: server.listen {config.server.listen} is not among them",
            "FreeSWITCH gives this eslbot no call",
            f"add {config.server.listen.from_own_host} to freeswitch.controllers; {site.render}, then "
            "`fs_cli -x reloadxml`",
        )
    for address in own:
        source = _source(site, address)
        if source is not None and not config.server.knows_switch(source):
            yield error(
                "server.switches",
                f"FreeSWITCH connects from {source}, which is not among them",
                "eslbot closes its connections, and every call is refused with 503",
                f'add "{source}" to server.switches and `eslbot reload`',
            )
    reload = f"{site.render}, then `fs_cli -x reloadxml`"
    told = {
        data.split(" ")[0]
        for context in site.switch.contexts.values()
        for application, data in actions(context)
        if application == "socket"
    }
    rendered = {"|".join(wanted), "|".join(wanted[1:] + wanted[:1])}
    if not told:
        yield error(
            "the dialplan's controllers",
            "no `socket` in the dialplan that FreeSWITCH has loaded",
            "no call reaches any eslbot",
            reload,
        )
    for found in sorted(told - rendered):
        yield error(
            "the dialplan's controllers",
            f"{found} instead of {'|'.join(wanted)}",
            "calls go to other controllers than freeswitch.controllers says",
            reload,
        )
    if told and told <= rendered:
        yield ok("the dialplan's controllers", "|".join(wanted))


def page(site: Site) -> Iterator[Finding]:
    """Who may see the call page and the metrics."""
    web = site.config.web
    if not web.listen.ip.is_loopback:
        yield warning(
            f"web.listen {web.listen}",
            "is not on loopback",
            "it speaks HTTP without TLS: page tokens cross the network readably, and all may read /metrics",
            'set web.listen = "127.0.0.1:8085" and put a TLS proxy in front of it',
        )
    if not web.tokens:
        yield note("web.tokens", "none", "nobody can see the call page", "add a [web.tokens.NAME] table")
    else:
        yield ok("web.tokens", ", ".join(token.name for token in web.tokens))
    for token, count in Counter(token.token for token in web.tokens).items():
        if count > 1:
            yield warning(
                "web.tokens",
                f"{', '.join(t.name for t in web.tokens if t.token == token)} have the same token",
                "what one of them may see, the other may, too; the log cannot tell them apart",
                "give each its own: openssl rand -hex 24",
            )


def _is_me(controller: Address, listen: Address) -> bool:
    if controller.port != listen.port:
        return False
    return controller.ip == listen.ip or (listen.ip.is_unspecified and is_own(controller.ip))


def _source(site: Site, controller: Address) -> str | None:
    """From which address FreeSWITCH reaches a controller of this host; None where that cannot be known."""
    if not site.switch_is_here:
        return None
    return "127.0.0.1" if controller.ip.is_loopback and controller.ip.version == 4 else str(controller.ip)
