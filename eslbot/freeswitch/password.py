"""The event socket's password: the configured one, or the one that ``eslbot conf`` has generated and kept."""

from __future__ import annotations

import errno
from pathlib import Path
from xml.etree import ElementTree

from eslbot.config.model import FreeSwitch, Secret

#: Where FreeSWITCH's packages have its configuration.
CONF_DIR = "/etc/freeswitch"
#: In it, the file that has the password.
VARS = Path("vars.xml")
#: What ``vars.xml`` in the repository holds; never kept.
NO_PASSWORD = "no-password-yet"


class NoPassword(Exception):
    """Nobody here knows the event socket's password; the text says where it was looked for."""


def event_socket_password(switch: FreeSwitch, conf_dir: str = CONF_DIR) -> Secret:
    """The configured one, or that which ``eslbot conf`` has made. Raises :class:`NoPassword`."""
    if switch.event_socket_password is not None:
        return switch.event_socket_password
    missing = f"freeswitch.event_socket_password is not set, and {conf_dir} has none"
    try:
        kept = kept_password(Path(conf_dir))
    except (OSError, UnicodeDecodeError, ElementTree.ParseError) as error:
        raise NoPassword(f"{missing}: {error}") from error
    if kept is None:
        raise NoPassword(missing)
    return Secret(kept)


def kept_password(conf_dir: Path) -> str | None:
    """What ``vars.xml`` in ``conf_dir`` holds, generated or not; None without one.

    Raises OSError, UnicodeDecodeError, ElementTree.ParseError (also where there is no such file).
    """
    settings = ElementTree.fromstring(read_text(conf_dir / VARS)).iter("X-PRE-PROCESS")
    values = dict(setting.get("data", "").partition("=")[::2] for setting in settings)
    kept = values.get("event_socket_password", NO_PASSWORD)
    return None if kept in ("", NO_PASSWORD) else kept


def read_text(path: Path) -> str:
    """The file's text; empty where there is none. Raises OSError (also at a link), UnicodeDecodeError."""
    if path.is_symlink():
        raise OSError(errno.ELOOP, "it is a symbolic link, and none is followed", str(path))
    return path.read_text("utf-8") if path.is_file() else ""
