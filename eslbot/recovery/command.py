"""``eslbot recovery``: what FreeSWITCH's unit runs before each start, and what shows its restarts."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from eslbot.recovery import paths
from eslbot.recovery.before_start import CRASHES, WITHIN, before_start
from eslbot.recovery.state import REMEDY, Recoveries, RecoveryFileError, read


def main(arguments: Sequence[str] | None = None) -> int:
    """``eslbot recovery``; the exit code."""
    parser = argparse.ArgumentParser(
        prog="eslbot recovery",
        description="Shows how often FreeSWITCH has died with calls up since this host's boot, and what "
        "became of them. With --before-start: what FreeSWITCH's unit runs before each start "
        "(deploy/freeswitch.conf).",
        epilog=f"A FreeSWITCH that died takes its calls up again. When it dies {CRASHES} times within "
        f"{WITHIN:g} s, one of them may be the cause, so it starts without them. Whatever is wrong with the "
        "database or the configuration is said, and the exit code is 0: FreeSWITCH has to start.",
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        default=os.environ.get("ESLBOT_CONFIG") or None,
        help="the TOML configuration, of which freeswitch.db and freeswitch.recovery_file are read "
        "(ESLBOT_CONFIG; default: none, and the usual places)",
    )
    parser.add_argument(
        "--before-start",
        action="store_true",
        help="count a start, close the databases to others, and delete the calls where they are in a loop of "
        "crashes. Only while FreeSWITCH does not run",
    )
    parser.add_argument(
        "--user",
        default="",
        help="with --before-start, as root: FreeSWITCH's user. freeswitch.db is made for that one where it "
        "is missing, and not looked at where it is another one's",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document, for programs")
    asked = parser.parse_args(arguments)
    return run(asked.config, before=asked.before_start, user=asked.user, as_json=asked.json)


def run(config: Path | None, *, before: bool = False, user: str = "", as_json: bool = False) -> int:
    """What the command does; the exit code."""
    databases, file, problems = paths.configured(config)
    if before:
        lines = before_start(databases, file, user=user, problems=problems)
        if as_json:
            print(_json({"told": lines}), flush=True)
        for line in [] if as_json else lines:
            print(f"eslbot recovery: {line}", flush=True)
        return 0
    for problem in problems:
        _complain(_json({"warning": problem}) if as_json else f"eslbot recovery: {problem}")
    try:
        known = read(file)
    except RecoveryFileError as error:
        why = f"{error}; {REMEDY}"
        failed = {"error": why, "problems": [], "exit_code": 1}
        _complain(_json(failed) if as_json else f"eslbot recovery: {why}")
        return 1
    if as_json:
        print(_json({"file": str(file), "counted": file.exists(), **asdict(known)}))
        return 0
    print(summary(known))
    if not file.exists():
        print(f"{file} is not there: no start of FreeSWITCH was counted since this host's boot")
    return 0


def summary(known: Recoveries) -> str:
    """For people."""
    lines = [
        f"restarts with calls up   {known.restarts}{_when(known.last_restart)}",
        f"calls there were then    {known.calls}",
        f"crash loops ended        {known.flushes}{_when(known.last_flush)}",
        f"calls dropped by that    {known.dropped}",
    ]
    return "\n".join([*lines, *([f"at the last start        {known.problem}"] if known.problem else [])])


def _when(moment: float | None) -> str:
    return "" if moment is None else time.strftime(", the last at %Y-%m-%d %H:%M:%S UTC", time.gmtime(moment))


def _json(document: dict[str, object]) -> str:
    return json.dumps(document, ensure_ascii=False)


def _complain(line: str) -> None:
    print(line, file=sys.stderr)
