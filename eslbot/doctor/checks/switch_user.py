"""Who of FreeSWITCH's host may speak to the event-socket listener, and whether FreeSWITCH is that one."""

from __future__ import annotations

from collections.abc import Iterator

from eslbot.config.model import ANY_USER
from eslbot.doctor.findings import Finding, error, note, ok, unknown, warning
from eslbot.doctor.host import User
from eslbot.doctor.site import Site
from eslbot.server import peer_credentials

_KEY = "server.switch_user"
_REFUSED = "eslbot closes FreeSWITCH's connections, and every call is refused with 503"


def matches(site: Site) -> Iterator[Finding]:
    """The configured user exists, the kernel can be asked, and FreeSWITCH runs as that user."""
    user = site.config.server.switch_user
    if user == ANY_USER:
        yield note(_KEY, "any", "local users are not told apart: see `configuration`")
        return
    if user is None:
        yield from _usual(site)
        return
    if problem := peer_credentials.problem(user, site.config.server.listen.ip):
        key, _, what = problem.partition(": ")
        yield error(key, what, "the service does not start with it", f"mend {_KEY} in {site.path}")
        return
    uid = site.freeswitch.uid if site.freeswitch is not None else None
    if not site.switch_is_here:
        yield ok(_KEY, f"{user}; FreeSWITCH is another host, where its user is not looked at")
    elif uid is None:
        yield unknown(_KEY, "whom FreeSWITCH runs as is not to be seen", "run doctor as root")
    elif uid == peer_credentials.uid_of(user):
        yield ok(_KEY, f"{user}, as whom FreeSWITCH runs")
    elif uid == peer_credentials.ROOT:
        yield warning(
            _KEY,
            f"{user}, but FreeSWITCH runs as root",
            "it is let in, as root always is, and whoever breaks into it has this host",
            f"start FreeSWITCH with -u {user}",
        )
    else:
        yield error(
            _KEY,
            f"{user}, but FreeSWITCH runs as {_name(uid)}",
            _REFUSED,
            f'set {_KEY} = "{_name(uid)}" in {site.path} and `eslbot reload`, or start FreeSWITCH '
            f"with -u {user}",
        )


def _usual(site: Site) -> Iterator[Finding]:
    """Without the key: root, the service's user, and one called as FreeSWITCH's packages call it."""
    uid = site.freeswitch.uid if site.freeswitch is not None else None
    if uid is None or not site.switch_is_here:
        yield note(
            _KEY,
            f"not set: of this host only root, {site.user.name} and {peer_credentials.USUAL} may speak",
            "",
        )
    elif uid in (peer_credentials.ROOT, site.user.uid, peer_credentials.uid_of(peer_credentials.USUAL)):
        yield ok(_KEY, f"not set; FreeSWITCH runs as {_name(uid)}, who is let in")
    else:
        yield error(
            _KEY,
            f"not set, and FreeSWITCH runs as {_name(uid)}",
            _REFUSED,
            f'set {_KEY} = "{_name(uid)}" in {site.path} and `eslbot reload`',
        )


def _name(uid: int) -> str:
    try:
        return User.numbered(uid).name
    except KeyError:
        return str(uid)
