"""``eslbot recording``: list, export, check and delete the recordings of calls."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from eslbot.cli.options import MomentParam, config_option, json_option, yes_option
from eslbot.cli.output import FAILED, UNUSABLE, document, give_up, say_yes
from eslbot.cli.reading import read

if TYPE_CHECKING:
    from eslbot.config import Config
    from eslbot.recording.store import Entry, RecordingStore

workspace_option = click.option(
    "--workspace", metavar="NAME-or-UUID", help="Only this tenant's; others are not there."
)


@click.group("recording")
def recording_group() -> None:
    """Recordings of calls: what there is, as a file to play, whether it is whole.

    Which calls are recorded says the configuration: record = true in a workspace's table.
    """


@recording_group.command("list")
@config_option
@workspace_option
@click.option("--since", type=MomentParam(), help="2h (ago), 2026-11-23 or 2026-11-23T10:15; UTC.")
@click.option("--until", type=MomentParam(), help="As --since.")
@json_option
def list_(path: Path, workspace: str | None, since: float | None, until: float | None, as_json: bool) -> None:
    """List recordings, the newest first."""
    from eslbot.recording.store import describe

    store, now = _store(path, workspace), time.time()
    found = [describe(entry, now) for entry in _all(store)]
    found = [
        one
        for one in found
        if (since is None or (one["began_at"] or 0) >= since)
        and (until is None or (one["began_at"] or 0) < until)
    ]
    found.sort(key=lambda one: one["began_at"] or 0, reverse=True)
    if as_json:
        document(found)
        return
    for one in found:
        click.echo(_line(one))
    size = sum(one["bytes"] for one in found)
    click.echo(f"{len(found)} recordings, {size / 1e6:,.1f} MB in {store.directory}", err=True)


@recording_group.command()
@click.argument("call_id", metavar="CALL-ID")
@config_option
@workspace_option
@click.option(
    "--out",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="A new file whose name ends in .wav or .flac.",
)
@json_option
def export(path: Path, call_id: str, workspace: str | None, out: Path, as_json: bool) -> None:
    """Write a recording to a file that anything plays: caller left, bot right.

    One that is sealed is opened with the workspace's key. Its parts stand on one time line. Exit code 1 where
    it is damaged: what could be read is in the file then.
    """
    from eslbot.recording.export import FORMATS, export
    from eslbot.recording.store import Damaged

    if out.suffix.lower() not in FORMATS:
        give_up(f"--out {out}: expected a name that ends in {' or '.join(FORMATS)}", UNUSABLE)
    store = _store(path, workspace)
    entry = _named(store, call_id)
    try:
        seconds = export(store, entry, out)
    except FileExistsError:
        give_up(f"--out {out}: is there already; choose another name", UNUSABLE)
    except Damaged as error:
        give_up(f"the recording is damaged: {error}", FAILED)
    except OSError as error:
        give_up(f"{out} cannot be written: {error.strerror or error}", FAILED)
    if as_json:
        document({"call_id": call_id, "file": str(out), "seconds": seconds})
    else:
        click.echo(f"{out}: {seconds:.1f} s")


@recording_group.command()
@click.argument("call_ids", metavar="[CALL-ID]...", nargs=-1)
@config_option
@workspace_option
@json_option
def check(path: Path, call_ids: tuple[str, ...], workspace: str | None, as_json: bool) -> None:
    """Read recordings to their end and say what is wrong; all of them where no call is named.

    Exit code 1 where any is damaged. One that is cut off, because what made it died, is not.
    """
    from eslbot.recording.store import describe

    store, now = _store(path, workspace), time.time()
    entries = [_named(store, call_id) for call_id in call_ids] or _all(store)
    told = [{**describe(entry, now), "problems": store.check(entry)} for entry in entries]
    damaged = sum(bool(one["problems"]) for one in told)
    if as_json:
        document(told)
    else:
        for one in told:
            for problem in one["problems"]:
                click.echo(f"{one['call_id']}: {problem}")
        click.echo(f"{len(told)} recordings, {damaged} damaged")
    raise SystemExit(FAILED if damaged else 0)


@recording_group.command()
@click.argument("call_ids", metavar="CALL-ID...", nargs=-1, required=True)
@config_option
@workspace_option
@yes_option
@json_option
def delete(path: Path, call_ids: tuple[str, ...], workspace: str | None, yes: bool, as_json: bool) -> None:
    """Delete the recordings of these calls, before their time is over."""
    store = _store(path, workspace)
    say_yes(yes, as_json=as_json)
    entries = [_named(store, call_id) for call_id in call_ids]
    if not yes:
        click.confirm(f"Delete {len(entries)} recordings?", abort=True, err=True)
    for entry in entries:
        try:
            store.delete(entry)
        except OSError as error:
            give_up(f"{entry.call_id} cannot be deleted: {error.strerror or error}", FAILED)
        if not as_json:
            click.echo(f"{entry.call_id}: deleted, {entry.files.size / 1e6:.1f} MB")
    if as_json:
        document({"deleted": [entry.call_id for entry in entries]})


def _store(path: Path, workspace: str | None) -> RecordingStore:
    from eslbot.recording.store import RecordingStore

    config = read(path)
    return RecordingStore(config, None if workspace is None else [_workspace_id(config, workspace)])


def _workspace_id(config: Config, wanted: str) -> str:
    """Of a name, or of a UUID, whose table may be gone by now."""
    from eslbot.recording.sidecar import WORKSPACE_ID

    for workspace in config.workspaces.values():
        if wanted == workspace.name or wanted.lower() == workspace.id:
            return workspace.id
    if not WORKSPACE_ID.fullmatch(wanted.lower()):
        give_up(f"there is no workspace {wanted!r}", UNUSABLE)
    return wanted.lower()


def _all(store: RecordingStore) -> list[Entry]:
    try:
        return list(store.all())
    except OSError as error:
        give_up(f"{store.directory} cannot be read: {error.strerror or error}", UNUSABLE)


def _named(store: RecordingStore, call_id: str) -> Entry:
    try:
        entry = store.get(call_id)
    except OSError as error:
        give_up(f"{store.directory} cannot be read: {error.strerror or error}", UNUSABLE)
    if entry is None:
        give_up(f"there is no recording of a call {call_id!r}", UNUSABLE)
    return entry


def _line(one: dict[str, Any]) -> str:
    began = (
        "?"
        if one["began_at"] is None
        else f"{datetime.fromtimestamp(one['began_at'], UTC):%Y-%m-%d %H:%M:%SZ}"
    )
    seconds = "?" if one["seconds"] is None else f"{one['seconds']:.1f} s"
    sealed = "sealed" if one["sealed"] else ""
    name = one["workspace"] or one["workspace_id"]
    words = (
        began,
        one["call_id"],
        name,
        one["crt_object_id"] or "?",
        seconds,
        one["state"],
        one["why"] or "",
    )
    told = "  ".join(word for word in (*words, sealed) if word)
    return told if one["problem"] is None else f"{told}  ({one['problem']})"
