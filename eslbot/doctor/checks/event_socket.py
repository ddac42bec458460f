"""FreeSWITCH's inbound event socket: whether it is there, lets us in, and takes the password."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from eslbot.config.model import Config, Secret
from eslbot.doctor.findings import Finding, error, ok, unknown
from eslbot.doctor.switch_state import SwitchState, ask
from eslbot.esl.errors import EslError
from eslbot.esl.inbound import InboundClient, Refused, WrongPassword
from eslbot.freeswitch.password import VARS, kept_password

_WHY = "without it nothing can be asked of FreeSWITCH; the checks that need it are not done"
_KEY = "freeswitch.event_socket_password"


def password_of(config: Config, conf_dir: str) -> Secret | Finding:
    """The configured password, or the one that ``eslbot conf`` generated; else why there is none."""
    if config.freeswitch.event_socket_password is not None:
        return config.freeswitch.event_socket_password
    where = str(Path(conf_dir) / VARS)
    try:
        kept = kept_password(Path(conf_dir))
    except OSError as refused:
        return error(
            _KEY,
            f"not configured, and {where} cannot be read: {refused.strerror}",
            _WHY,
            "run doctor as root or as a member of FreeSWITCH's group",
        )
    except (UnicodeDecodeError, ElementTree.ParseError):
        kept = None
    if kept is None:
        return error(
            _KEY,
            f"not configured, and there is none in {where}",
            _WHY,
            "name the directory that `eslbot conf` has written with --freeswitch-conf DIR, or set "
            f"{_KEY} and render again",
        )
    return Secret(kept)


def examine(config: Config, conf_dir: str, patience: float) -> tuple[SwitchState | None, list[Finding]]:
    """What FreeSWITCH answers, and what was found on the way there."""
    address = config.freeswitch.event_socket
    looked_at = f"the event socket {address}"
    password = password_of(config, conf_dir)
    if isinstance(password, Finding):
        return None, [password]
    whence = _KEY if config.freeswitch.event_socket_password is not None else str(Path(conf_dir) / VARS)
    try:
        with InboundClient(address, password, patience) as client:
            return ask(client, config), [ok(looked_at, f"takes the password of {whence}")]
    except Refused:
        found = "refuses this host before it asks for a password (rude rejection)"
        remedy = (
            "run doctor on FreeSWITCH's host, or let this host's address into the list `event-socket` of "
            "autoload_configs/acl.conf.xml and say `fs_cli -x reloadacl`"
        )
    except WrongPassword:
        found = f"does not take the password of {whence}"
        remedy = (
            f"set {_KEY} to FreeSWITCH's (event_socket_password in its vars.xml), or render it anew "
            f"(eslbot conf … --out {conf_dir}) and restart FreeSWITCH when no call is up: a running one "
            "keeps the password it started with"
        )
    except EslError as failed:
        found, remedy = str(failed), f"look who listens there: ss -ltnp 'sport = {address.port}'"
    except OSError as failed:
        found = f"cannot be reached: {failed.strerror or failed}"
        remedy = (
            "start FreeSWITCH (systemctl status freeswitch; its log says why it ended), and look whether "
            "freeswitch.event_socket is its address"
        )
    return None, [error(looked_at, found, _WHY, remedy)]


def not_asked(title: str) -> Finding:
    """For a check that needs FreeSWITCH's answers."""
    return unknown(title, "FreeSWITCH could not be asked", "mend `event-socket` first")
