"""``python -m benchmarks.speech``."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import click

from benchmarks.frame import Run, measuring
from benchmarks.outcome import Verdict
from benchmarks.speech import cases
from benchmarks.speech.bot import Bots
from benchmarks.speech.calls import CallFailed, Stage
from benchmarks.speech.cases import CALLS, OTHERS, TALKS, Figures
from benchmarks.speech.measures import merge
from benchmarks.speech.peer import Peer
from benchmarks.speech.report import Report, Told
from benchmarks.speech.rows import CROWD, FULL, HUP, KILLS, ODD, RELAY, ROWS, SEAMS, TALK, Row
from benchmarks.speech.subjects import BEFORE, NoSubject, Site, Subject, before, this

#: Seconds after which the run is given up, without and with ``--long``.
LIMIT, LONG_LIMIT = 1200, 2400
#: Seconds of a long call; with ``--quick`` and ``--long``.
SEAM, QUICK_SEAM, LONG_SEAM = 180.0, 70.0, 900.0

Failures = (CallFailed, NoSubject, TimeoutError, OSError, RuntimeError, AssertionError, LookupError)


@dataclass(frozen=True)
class Plan:
    """How much of what; seconds and counts."""

    wanted: frozenset[str]
    rounds: int = 3
    seed: int = 1
    talk: float = 40.0
    kills: int = 200
    kills_before: int = 20
    hup_calls: int = 20
    relay_rounds: int = 3
    crowd: int = 60
    full: float = 20.0
    seams: float = SEAM


@dataclass
class Bench:
    """Whoever is measured, and what is known so far: figures by subject and case."""

    plan: Plan
    stages: dict[str, Stage]
    say: Callable[[str], None]
    figures: dict[str, dict[str, Figures]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def measure(self, who: str, case: str, run: Callable[[Stage], Figures]) -> None:
        """Run a case on a subject, and add it to what is known."""
        if who not in self.stages or case not in self.plan.wanted:
            return
        self.say(f"{case}: {who}")
        begun = time.monotonic()
        try:
            found = run(self.stages[who])
        except Failures as error:
            self.failures.append(f"{case}, {who}: {error!r}")
            traceback.print_exc()
            return
        found = {**found, "load": [os.getloadavg()[0]], "took": [time.monotonic() - begun]}
        known = self.figures.setdefault(who, {})
        known[case] = merge(known.get(case, {}), found)


OURS, THEIRS = "this", "before"


@click.command()
@click.option(
    "--only", multiple=True, type=click.Choice([row.key for row in ROWS]), help="A row; may be repeated."
)
@click.option("--quick", is_flag=True, help="One round, fewer and shorter: three minutes.")
@click.option("--long", "long_", is_flag=True, help="The long call takes 15 minutes instead of three.")
@click.option("--rounds", type=click.IntRange(1, 20), help="Seeds of the conversations; 3, with --quick 1.")
@click.option("--seed", type=int, default=1, show_default=True, help="The first one.")
@click.option(
    "--before", "commit", default=BEFORE, show_default=True, help="What is measured beside; `none`."
)
@click.option("--workers", type=click.IntRange(2, 16), default=4, show_default=True, help="Controllers.")
@click.option("--out", type=click.Path(path_type=Path), help="Write FILE.md and FILE.json.")
@click.option(
    "--keep", type=click.Path(file_okay=False, path_type=Path), help="Keep logs and configurations here."
)
def main(
    only: tuple[str, ...],
    quick: bool,
    long_: bool,
    rounds: int | None,
    seed: int,
    commit: str,
    workers: int,
    out: Path | None,
    keep: Path | None,
) -> None:
    """Measure the line, whole calls on a real FreeSWITCH, against the bars of the issue "The line".

    Callers (RTP), FreeSWITCH, eslbot, bots: on loopback. Beside it the commit before, in a worktree. Exits 0
    when everything was measured, whatever the figures, and 1 when something could not be.
    """
    wanted = frozenset(row.case for row in ROWS if not only or row.key in only)
    plan = Plan(wanted, seed=seed, seams=LONG_SEAM if long_ else SEAM)
    if quick:
        plan = Plan(
            wanted,
            1,
            seed,
            24.0,  # two utterances of the jittery bots: the first does not count
            kills=20,
            kills_before=5,
            hup_calls=8,
            relay_rounds=1,
            crowd=30,
            full=5.0,
            seams=LONG_SEAM if long_ else QUICK_SEAM,
        )
    if rounds:
        plan = Plan(**{**plan.__dict__, "rounds": rounds})
    limit = LONG_LIMIT if long_ else LIMIT
    with measuring("python -m benchmarks.speech", keep=keep, limit=limit) as run:
        report = _report(plan, run, commit, workers)
    report.rows = [row for row in report.rows if not only or row.key in only]
    print(report.markdown())
    if out is not None:
        out.with_suffix(".md").write_text(report.markdown(), encoding="utf-8")
        out.with_suffix(".json").write_text(report.json(), encoding="utf-8")
    sys.exit(1 if report.failures else 0)


@contextmanager
def _sites(
    run: Run, commit: str, urls: dict[str, str], workers: int
) -> Iterator[tuple[dict[str, Site], str]]:
    """All subjects, up; and why there is no commit before, where there is none."""
    with ExitStack() as stack:
        found: dict[str, Site] = {}
        why = ""

        def add(who: str, subject: Subject, not_rtp: Sequence[int] = ()) -> None:
            found[who] = stack.enter_context(Site(subject, run.folder / who, urls, workers, not_rtp))

        run.say("starting FreeSWITCH, a PBX, Ameyo and eslbot")
        add(OURS, this())
        if commit == "none":
            why = "not wanted"
        else:
            run.say(f"the same with the commit before, {commit}")
            try:
                add(THEIRS, stack.enter_context(before(commit)), found[OURS].facts["rtp"])
            except NoSubject as error:
                why = str(error)
        yield found, why


def _report(plan: Plan, run: Run, commit: str, workers: int) -> Report:
    with Peer() as peer, Bots() as bots, Peer() as lonely, Bots() as other:
        urls = {**dict.fromkeys((*TALKS, *OTHERS), bots.url), cases.SEAMS: other.url}
        with _sites(run, commit, urls, workers) as (sites, why):
            bench = Bench(plan, {who: Stage(site, peer, bots) for who, site in sites.items()}, run.say)
            _measure(bench, Stage(sites[OURS], lonely, other))
            run.about.switch = sites[OURS].facts["switch"]
            run.about.versions = {"eslbot": f"{sites[OURS].subject.revision}, {workers} controllers"}
            report = Report(
                run.about,
                before=sites[THEIRS].subject.revision if THEIRS in sites else why,
                settings=f"PCMU on the line, L16 from the bots; {plan.rounds} rounds from seed {plan.seed}",
                failures=bench.failures,
                figures=bench.figures,
            )
            for who, stage in bench.stages.items():
                report.problems += [f"{who}: {problem}" for problem in stage.problems]
                report.problems += [f"{who}'s FreeSWITCH: {line}" for line in stage.site.complaints()[:5]]
    report.rows = [_told(row, bench.figures) for row in ROWS]
    run.over()
    return report


def _measure(bench: Bench, lonely: Stage) -> None:
    plan, kinds = bench.plan, list(CALLS)
    seams = None
    if SEAMS in plan.wanted:
        try:
            seams = cases.Seams(lonely, plan.seams, plan.seed)
        except Failures as error:
            bench.failures.append(f"{SEAMS}: {error!r}")
    for number in range(plan.rounds):
        seed = plan.seed + number
        for who in (OURS, THEIRS):
            bench.measure(who, TALK, lambda stage, s=seed: cases.conversation(stage, plan.talk, s, kinds))  # type: ignore[misc]
    if seams is not None:
        long_call = seams
        bench.measure(OURS, SEAMS, lambda _: long_call.finish())
    for who in (OURS, THEIRS):
        bench.measure(who, ODD, lambda stage: cases.odd_lines(stage, plan.seed))
    for who in (OURS, THEIRS):
        bench.measure(who, CROWD, lambda stage: cases.crowd(stage, plan.crowd, 14.0, plan.seed))
    for who in (OURS, THEIRS):
        bench.measure(who, HUP, lambda stage: cases.hup(stage, plan.hup_calls, 9.0, plan.seed))
    bench.measure(OURS, RELAY, lambda stage: cases.relay_deaths(stage, 4, plan.relay_rounds, plan.seed))
    for who, count in ((OURS, plan.kills), (THEIRS, plan.kills_before)):
        bench.measure(who, KILLS, lambda stage, n=count: cases.kills(stage, n, plan.seed))  # type: ignore[misc]
    for side in ("freeswitch", "relay"):
        bench.measure(
            OURS,
            FULL,
            lambda stage, s=side: {s: cases.full_machine(stage, s, plan.full, 4, plan.seed)},  # type: ignore[misc]
        )


def _told(row: Row, figures: dict[str, dict[str, Figures]]) -> Told:
    def judged(who: str) -> tuple[str, bool | None, str]:
        some = figures.get(who, {}).get(row.case)
        if some is None:
            return "", None, ""
        load = "–".join(f"{value:.1f}" for value in sorted({min(some["load"]), max(some["load"])}))
        return *row.judge(some), load

    text, met, load = judged(OURS)
    theirs = judged(THEIRS)[0] if row.both else ""
    return Told(row.key, Verdict(row.measure, row.bar, text, met), load, theirs)


if __name__ == "__main__":
    main()
