"""What the cases at the event socket found: tables, bars and faults. Nothing here is measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from benchmarks.esl.cases import AWAY
from benchmarks.esl.generator import Result
from benchmarks.outcome import Data, Told, Verdict, cell, lost, median, ratios
from eslbot.sim.loadtest.tables import percentile, table

ESLBOT, WIRE, GREENSWITCH, GEVENT = "eslbot", "eslbot.esl alone", "greenswitch", "bare gevent"
#: The bars.
OVER_GREENSWITCH, OVER_GEVENT = 6.0, 0.6
ANSWER_P50, ANSWER_P99 = 1.5, 2.0
FIRST_COMMAND_MS, POST_P99_MS = 250.0, 5.0
HELD_KB, IDLE_PERCENT, HELD = 30.0, 0.5, 5000
TWO_WORKERS = 1.8

Rounds = Mapping[str, Sequence[Result]]
Column = tuple[str, Callable[[Result], float], int]


def pooled(results: Sequence[Result], series: str, percent: float) -> float:
    """A percentile of a series over all rounds; NaN where no call came so far."""
    return percentile([value for result in results for value in result.get(f"{series}_all", ())], percent)


# -- beside others ----------------------------------------------------------------------------------------


def tell_throughput(data: Data) -> Told:
    """Calls a second, and the ratios."""
    rounds: Rounds = data["rounds"]
    told = Told(faults=_losses(rounds.get(ESLBOT, []), "eslbot"))
    own = rounds.get(ESLBOT, [])
    rows = _beside(rounds, ESLBOT) + _beside(rounds, WIRE)
    for subject, results in rounds.items():
        if subject != ESLBOT and own:
            speed = ratios(_each(own, "calls_per_second"), _each(results, "calls_per_second"))
            for name, bar in ((GREENSWITCH, OVER_GREENSWITCH), (GEVENT, OVER_GEVENT)):
                if name == subject:
                    told.verdicts.append(
                        Verdict(
                            f"calls/s beside {name}",
                            f"≥ {bar:g}×",
                            f"{cell(speed, 2)}×",
                            median(speed) >= bar,
                        )
                    )
    columns: list[Column] = [
        ("calls/s", lambda r: r["calls_per_second"], 0),
        ("its CPU, µs a call", lambda r: r["cpu_us_per_call"], 0),
        ("its core used", lambda r: r["cores_used"], 2),
        ("generator's core used", lambda r: r["own_cpu"], 2),
        ("lost", lost, 0),
    ]
    parts = [table(("", "calls/s", "calls per CPU second"), rows)] if rows else []
    parts += [
        _table(rounds, columns),
        f"{data['in_flight']} calls in flight, each controller on one core, the generator on another; "
        "median of the rounds (least–most). A controller whose core is not used up waits, for the "
        "generator or for itself. C is the generator's limit. The others, eslbot's own event socket alone "
        "among them, send 7 or 8 commands a call and no notification, and log and count nothing; eslbot "
        "does its whole story.\n",
    ]
    told.text = "\n".join(parts)
    _add_failures(told, data)
    return told


def _beside(rounds: Rounds, first: str) -> list[tuple[str, str, str]]:
    """A row of ratios for each other subject; none where ``first`` was not measured."""
    own = rounds.get(first, [])
    return [
        (
            f"{first} / {subject}",
            cell(ratios(_each(own, "calls_per_second"), _each(results, "calls_per_second")), 2),
            cell(ratios(_each(results, "cpu_us_per_call"), _each(own, "cpu_us_per_call")), 2),
        )
        for subject, results in rounds.items()
        if own and subject not in (ESLBOT, first)
    ]


def tell_paced(data: Data) -> Told:
    """Latencies."""
    rounds: Rounds = data["rounds"]
    told = Told(faults=_losses(rounds.get(ESLBOT, []), "eslbot"))
    rows = [
        (
            subject,
            *(
                _ms(pooled(results, series, p))
                for series in ("answer_ms", "end_to_marker_ms")
                for p in (50, 99)
            ),
            cell(_each(results, "cpu_us_per_call"), 0),
            cell([float(lost(result)) for result in results], 0),
        )
        for subject, results in rounds.items()
    ]
    head = (
        "",
        "connect → `answer` p50, ms",
        "p99",
        "bot's end → marker p50, ms",
        "p99",
        "its CPU, µs a call",
        "lost",
    )
    told.text = table(head, rows) + (
        f"\n{data['rate']:g} calls/s; percentiles of the calls of all rounds. The marker is the command with "
        "which a controller says that the bot's end has come; eslbot has notified Ameyo by then.\n"
    )
    _add_failures(told, data)
    if rounds.get(ESLBOT) and rounds.get(GEVENT):
        own, other = (
            [pooled(rounds[subject], "answer_ms", p) for p in (50, 99)] for subject in (ESLBOT, GEVENT)
        )
        (first,), (last,) = ratios(own[:1], other[:1]), ratios(own[1:], other[1:])
        told.verdicts.append(
            Verdict(
                f"connect → `answer` at {data['rate']:g}/s beside {GEVENT}",
                f"p50 ≤ {ANSWER_P50:g}×, p99 ≤ {ANSWER_P99:g}×",
                f"p50 {first:.2f}× ({_ms(own[0])} of {_ms(other[0])} ms), "
                f"p99 {last:.2f}× ({_ms(own[1])} of {_ms(other[1])} ms)",
                first <= ANSWER_P50 and last <= ANSWER_P99,
            )
        )
    return told


def tell_burst(data: Data) -> Told:
    """Who is lost, and how long the others wait."""
    rounds: Rounds = data["rounds"]
    told = Told(faults=_losses(rounds.get(ESLBOT, []), "eslbot"))
    columns: list[Column] = [
        ("lost", lost, 0),
        ("first command p99, ms", _p99("first_command_ms"), 1),
        ("`answer` p99, ms", _p99("answer_ms"), 1),
    ]
    told.text = _table(rounds, columns) + f"\n{data['calls']} calls in one moment.\n"
    _add_failures(told, data)
    if own := rounds.get(ESLBOT):
        gone = sum(map(lost, own))
        first = [_p99("first_command_ms")(result) for result in own]
        bar = f"0; first command p99 ≤ {FIRST_COMMAND_MS:g} ms"
        text = f"{gone}; {cell(first)} ms"
        told.verdicts.append(
            Verdict(
                f"{data['calls']} calls at once: lost",
                bar,
                text,
                not gone and median(first) <= FIRST_COMMAND_MS,
            )
        )
    return told


def tell_hold(data: Data) -> Told:
    """Memory and idle processor time."""
    told = Told()
    parts = []
    columns: list[Column] = [
        ("kB a call", lambda r: r["kb_per_call"], 1),
        ("idle, % of a core", lambda r: r["idle_core_percent"], 2),
        ("held", lambda r: r["held"], 0),
        ("lost", lost, 0),
    ]
    for count, results in data["counts"].items():
        rounds = {subject: [result] for subject, result in results.items()}
        parts += [f"{int(count):,} calls:\n", _table(rounds, columns)]
        if ESLBOT not in results:
            continue
        own = results[ESLBOT]
        told.faults += _losses(rounds[ESLBOT], f"{int(count):,} held")
        if own["held"] != int(count):
            told.faults.append(f"eslbot held {own['held']} calls of {count}")
        kb, idle = own["kb_per_call"], own["idle_core_percent"]
        bar = f"≤ {HELD_KB:g}" + ("" if int(count) >= HELD else f" at {HELD:,}")
        told.verdicts += [
            Verdict(f"kB a held call, {int(count):,} held", bar, f"{kb:.1f}", kb <= HELD_KB),
            Verdict(
                f"idle CPU at {int(count):,} held",
                f"≤ {IDLE_PERCENT:g} %",
                f"{idle:.2f} %",
                idle <= IDLE_PERCENT,
            ),
        ]
    parts.append(
        "kB (1,000 bytes) are what the processes' anonymous memory (Pss_Anon) grew by. greenswitch looks for "
        "connections ten times a second, so it is never idle.\n"
    )
    told.text = "\n".join(parts)
    _add_failures(told, data)
    return told


# -- eslbot alone -----------------------------------------------------------------------------------------


def tell_workers(data: Data) -> Told:
    """What a second worker gives."""
    rounds: Rounds = data["rounds"]
    told = Told()
    for count, results in rounds.items():
        told.faults += _losses(results, f"{count} workers")
    columns: list[Column] = [
        ("calls/s", lambda r: r["calls_per_second"], 0),
        ("CPU, µs a call", lambda r: r["cpu_us_per_call"], 0),
        ("cores used", lambda r: r["cores_used"], 2),
        ("generator's core used", lambda r: r["own_cpu"], 2),
        ("lost", lost, 0),
    ]
    gain = ratios(_each(rounds["2"], "calls_per_second"), _each(rounds["1"], "calls_per_second"))
    cpu = ratios(_each(rounds["2"], "cpu_us_per_call"), _each(rounds["1"], "cpu_us_per_call"))
    shares = [percent_shares(result["worker_cpu_seconds"]) for result in rounds["2"]]
    apart = bool(data["apart"])
    measure = "calls/s of two workers beside one"
    bar = f"≥ {TWO_WORKERS:g}× where two free cores exist"
    text = f"{cell(gain, 2)}×; CPU a call {cell(cpu, 2)}×"
    if not apart:
        text += f"; **{data['cores']} cores, and the generator is on one of them**"
    told.verdicts.append(Verdict(measure, bar, text, median(gain) >= TWO_WORKERS if apart else None))
    parts = [_table({f"{count} worker{'s' * (count != '1')}": r for count, r in rounds.items()}, columns)]
    if not apart:
        parts.append(
            f"This machine has {data['cores']} cores: two workers and the generator share them, so the bar "
            "cannot be measured. What can: whether a call costs more CPU with two workers than with one.\n"
        )
    parts.append(
        "How the kernel spread the calls over two workers: by processor time under full load "
        + ", ".join(" : ".join(f"{share:.0f} %" for share in pair) for pair in shares)
        + "; of calls that came one after another and stayed "
        + ", ".join(" : ".join(map(str, pair)) for pair in data["spread"])
        + ".\n"
    )
    told.text = "\n".join(parts)
    return told


def percent_shares(values: Sequence[float]) -> list[float]:
    """Each value in percent of them all, the largest first."""
    whole = sum(values)
    return sorted((100 * value / whole if whole else 0.0 for value in values), reverse=True)


def tell_handoff(data: Data) -> Told:
    """From the bot's end to the POST."""
    told = Told()
    rows = []
    for way, rounds in data["rounds"].items():
        values = [value for found in rounds for value in found]
        rows.append((way, str(len(values)), *(_ms(percentile(values, p)) for p in (50, 90, 99, 100))))
        if way == "plain HTTP":
            p99 = percentile(values, 99)
            text = f"{_ms(p99)} ms of {len(values)} (p50 {_ms(percentile(values, 50))} ms)"
            told.verdicts.append(
                Verdict("bot's end → POST, p99", f"≤ {POST_P99_MS:g} ms", text, p99 <= POST_P99_MS)
            )
    told.text = table(("Ameyo by", "calls", "p50, ms", "p90", "p99", "longest"), rows) + (
        f"\nFrom the event with the bot's `end` to the whole request at Ameyo, {data['rate']:g} calls/s, "
        "connections warm. Plain HTTP ends in the generator; TLS in a stand-in in Python, whose own time "
        "is in it.\n"
    )
    return told


def tell_storm(data: Data) -> Told:
    """Ameyo away, and back."""
    told = Told()
    rows = []
    for away, result in data["variants"].items():
        storm = storm_figures(result)
        accepted, calm = result["accepted"], result["calm_answer_ms"]["p99"]
        rows.append(
            (
                AWAY[away],
                f"{storm['cpu_percent']:.1f} %",
                f"{storm['attempts_per_second']:.1f}",
                f"{storm['answer_p50']:.1f} / {storm['answer_p99']:.1f} ms ({calm:.1f})",
                f"{result['fresh_answered']} of {result['fresh']}",
                f"{accepted['once']} / {accepted['again']} / {accepted['never']}",
                f"{storm['median_after']:.1f} s" if storm["all_after"] >= 0 else "–",
                f"{storm['all_after']:.1f} s" if storm["all_after"] >= 0 else "**not all**",
            )
        )
        told.faults += [f"storm, {AWAY[away]}: {fault}" for fault in storm_faults(result, data["waiting"])]
        told.verdicts.append(
            Verdict(
                f"{data['waiting']} calls wait for an Ameyo that is away: {AWAY[away]}",
                "each accepted exactly once; CPU bounded",
                f"{accepted['once']} once, {accepted['again']} again, {accepted['never']} never"
                + (f"; all {storm['all_after']:.1f} s after it was back" if storm["all_after"] >= 0 else "")
                + f"; {storm['cpu_percent']:.1f} % of a core meanwhile",
                not storm_faults(result, data["waiting"]),
            )
        )
    head = (
        "Ameyo",
        "CPU, % of a core",
        "attempts/s",
        "a new call's connect → `answer` p50 / p99 (p99 before)",
        "new calls answered",
        "accepted once / again / never",
        "half of them after",
        "all after",
    )
    told.text = table(head, rows) + (
        f"\nOne worker. {data['waiting']} calls come 100 a second and wait; from the last one's waiting on, "
        f"for {data['down']:g} s, {data['fresh']:g} new calls a second come and go, and CPU and attempts "
        "are counted, which are what eslbot notes on the channels. Then Ameyo is back, closes what hangs, "
        "and the times of the last columns begin.\n"
    )
    return told


def storm_figures(result: Result) -> dict[str, float]:
    """Of one storm: while Ameyo was away and all waited, and behind its return; seconds, -1 for never."""
    begin, end, slot = result["waiting_after"], result["back_after"], result["slot_seconds"]
    cpu = [(at, used) for at, used in result["cpu"] if begin <= at <= end]
    cores = (cpu[-1][1] - cpu[0][1]) / (cpu[-1][0] - cpu[0][0]) if len(cpu) > 1 else float("nan")
    slots = result["attempts_by_slot"][round(begin / slot) : round(end / slot)]
    taken, half_at = 0, -1.0
    wanted = sum(result["accepted_by_slot"]) / 2
    for number, count in enumerate(result["accepted_by_slot"]):
        taken += count
        if wanted and taken >= wanted:
            half_at = (number + 1) * slot
            break
    all_at = result["all_taken_after"]
    fresh = result.get("fresh_down_ms_all", [])
    return {
        "cpu_percent": 100 * cores,
        "attempts_per_second": sum(slots) / (len(slots) * slot) if slots else float("nan"),
        "answer_p50": percentile(fresh, 50),
        "answer_p99": percentile(fresh, 99),
        "median_after": max(0.0, half_at - end) if half_at >= 0 else -1.0,
        "all_after": all_at - end if all_at >= 0 else -1.0,
    }


def storm_faults(result: Result, waiting: int) -> list[str]:
    """Promises that were broken."""
    accepted, faults = result["accepted"], _losses([result], "storm")
    if accepted["once"] != waiting:
        faults.append(
            f"of {waiting} calls {accepted['once']} were accepted once, {accepted['again']} more often, "
            f"{accepted['never']} never"
        )
    if result["fresh_answered"] != result["fresh"]:
        faults.append(
            f"{result['fresh'] - result['fresh_answered']} of {result['fresh']} new calls unanswered"
        )
    return faults


# -- tables -----------------------------------------------------------------------------------------------


def _add_failures(told: Told, data: Data) -> None:
    """What eslbot could not do is a fault; what another could not is a result."""
    told.faults += [f"{subject}, {text}" for subject, text in data["failures"] if subject == ESLBOT]
    others = [(subject, text) for subject, text in data["failures"] if subject != ESLBOT]
    told.text += "".join(f"\n* {subject} could not be measured, {text}\n" for subject, text in others)


def _losses(results: Sequence[Result], what: str) -> list[str]:
    found = [result["lost"] for result in results if lost(result)]
    return [f"{what}: calls lost, {one}" for one in found]


def _table(rounds: Rounds, columns: Sequence[Column]) -> str:
    rows = [
        (subject, *(cell([value(result) for result in results], digits) for _, value, digits in columns))
        for subject, results in rounds.items()
    ]
    return table(("", *(name for name, _, _ in columns)), rows)


def _each(results: Sequence[Result], name: str) -> list[float]:
    return [result[name] for result in results]


def _p99(series: str) -> Callable[[Result], float]:
    return lambda result: float(result[series]["p99"]) if series in result else float("nan")


def _ms(value: float) -> str:
    return "–" if value != value else f"{value:.1f}"
