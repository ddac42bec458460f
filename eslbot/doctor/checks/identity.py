"""The key that signs whose call a call is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from eslbot.caller import keyfile
from eslbot.doctor.findings import Finding, error, note, ok, unknown
from eslbot.doctor.site import Site

_WHY = "the service does not start, or calls that come from another host belong to nobody here"


def key(site: Site) -> Iterator[Finding]:
    """It is there, and only the service can read it; fingerprints show whether all hosts have the same."""
    path = site.config.server.key_file
    looked_at = f"server.key_file {path}"
    try:
        owner = Path(path).lstat().st_uid
    except FileNotFoundError:
        yield note(looked_at, "not there yet: the service makes it at its first start", "", _copy(site, path))
        return
    except OSError as failed:
        yield unknown(looked_at, str(failed.strerror), "run doctor as root")
        return
    if owner not in (site.user.uid, 0) or (owner == 0 and site.user.uid != 0):
        yield error(
            looked_at, f"is uid {owner}'s, not {site.user.name}'s", _WHY, f"chown {site.user.name} {path}"
        )
        return
    try:
        signer = keyfile.load(Path(path), owner)
    except keyfile.KeyFileError as refused:
        yield error(looked_at, str(refused), _WHY, "eslbot key tells whether it can be used")
        return
    believed = f", believes {', '.join(signer.fingerprints[1:])}, too" if signer.fingerprints[1:] else ""
    yield ok(looked_at, f"signs with {signer.fingerprints[0]}{believed}")
    if len(site.config.freeswitch.controllers) > 1:
        yield note(
            looked_at,
            f"{len(site.config.freeswitch.controllers)} controllers share FreeSWITCH's calls",
            "a call that changes hosts is verified by the other host's key",
            "compare: `eslbot key` shows the same fingerprint on each of them",
        )


def _copy(site: Site, path: str) -> str:
    several = len(site.config.freeswitch.controllers) > 1
    return f"copy {path} from the first host to the others before they take calls" if several else ""
