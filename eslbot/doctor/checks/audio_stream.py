"""mod_audio_stream: which build it is, and whether that fits the workspaces.

A running FreeSWITCH does not tell: the community build and the one that plays by itself give the same syntax.
The module's file does: only a build that plays by itself reads ``STREAM_PLAYBACK``, and one with TLS is
linked against, or contains, OpenSSL.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from eslbot.doctor.findings import Finding, error, ok, unknown
from eslbot.doctor.site import Site

#: The community build has 0.2 MB; one with everything linked in, some 10.
MAX_BYTES = 128 * 1024 * 1024

_PLAYS = b"STREAM_PLAYBACK"
_TLS = (b"libssl", b"SSL_CTX_new", b"OpenSSL ")
_BY_HAND = (
    "on FreeSWITCH's host: grep -c STREAM_PLAYBACK mod_audio_stream.so (0: the community build, "
    'playback = "files"), ldd mod_audio_stream.so | grep ssl (TLS)'
)


def build(site: Site) -> Iterator[Finding]:
    """Against ``bot.playback`` and ``wss://`` of each workspace."""
    if site.switch.modules.get("mod_audio_stream") is not True:
        yield unknown("mod_audio_stream's build", "the module is not loaded", "mend `modules` first")
        return
    if not site.switch.told.get("uuid_audio_stream", "").startswith("-USAGE"):
        yield error(
            "uuid_audio_stream",
            "FreeSWITCH does not know the command",
            "no bot can be connected",
            "install mod_audio_stream anew and restart FreeSWITCH when no call is up",
        )
    folder = site.switch.variables.get("mod_dir")
    if not site.switch_is_here or not folder:
        yield unknown("mod_audio_stream's build", "its file is on FreeSWITCH's host", _BY_HAND)
        return
    path = Path(folder) / "mod_audio_stream.so"
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES)
    except OSError as failed:
        yield unknown(str(path), f"cannot be read: {failed.strerror}", _BY_HAND)
        return
    yield from judge(site, str(path), _PLAYS in content, any(sign in content for sign in _TLS))


def judge(site: Site, path: str, plays: bool, tls: bool) -> Iterator[Finding]:
    """A build that plays by itself or not, with TLS or not, against each workspace."""
    kind = "plays by itself" if plays else "community build (files)"
    yield ok(path, f"{kind}, {'with' if tls else 'without'} TLS")
    for workspace in site.config.workspaces.values():
        key = f"workspaces.{workspace.id}.bot"
        if plays != (workspace.bot.playback == "module"):
            yield error(
                f"{key}.playback ({workspace.name})",
                f'"{workspace.bot.playback}", while mod_audio_stream: {kind}',
                "the caller does not hear the bot",
                f'set {key}.playback = "{"module" if plays else "files"}" and `systemctl reload eslbot`',
            )
        if not tls and (secure := [url for url in workspace.bot.urls if url.lower().startswith("wss:")]):
            yield error(
                f"{key}.url ({workspace.name})",
                f"{len(secure)} wss:// URL(s), while mod_audio_stream was built without TLS",
                "FreeSWITCH cannot connect the bot",
                "install a build with TLS, or put a proxy that speaks TLS on FreeSWITCH's host and name that "
                "one as ws:// with insecure = true",
            )
