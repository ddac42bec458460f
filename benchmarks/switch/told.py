"""What the cases on a real FreeSWITCH found. Nothing here is measured."""

from __future__ import annotations

from benchmarks.outcome import Data, Told, Verdict
from benchmarks.switch.cases import LISTENS, ONLY_ANSWER, SPEAKS
from eslbot.sim.loadtest.tables import percentile, table

#: The bars.
ADDED_P99_MS, SHARE_PERCENT = 25.0, 10.0

NAMES = {"eslbot": "eslbot", ONLY_ANSWER: "a dialplan that only answers"}
BOTS = {LISTENS: "the bot listens", SPEAKS: "the bot speaks"}


def tell_set_up(data: Data) -> Told:
    """INVITE → 200."""
    told = Told()
    values = {subject: [v for found in rounds for v in found] for subject, rounds in data["rounds"].items()}
    percents = (50, 90, 99, 100)
    found = {subject: [percentile(one, p) for p in percents] for subject, one in values.items()}
    added = [a - b for a, b in zip(found["eslbot"], found[ONLY_ANSWER], strict=True)]
    rows = [
        (NAMES[subject], str(len(values[subject])), *(f"{value:.1f}" for value in found[subject]))
        for subject in found
    ]
    rows.append(("**added**", "", *(f"**{value:.1f}**" for value in added)))
    told.text = table(("200 by", "calls", "p50, ms", "p90", "p99", "longest"), rows) + (
        "\nINVITE → 200 by SIPp's own clock (microseconds; its loop looks every millisecond), "
        f"{data['rate']:g} calls/s of 1 s each, in turns on {data['switch']}. Added is the difference of "
        "the percentiles.\n"
    )
    text = (
        f"{added[2]:.1f} ms ({found['eslbot'][2]:.1f} of {found[ONLY_ANSWER][2]:.1f}); p50 {added[0]:.1f} ms"
    )
    told.verdicts.append(
        Verdict(
            "set-up, INVITE → 200: added to a dialplan that only answers, p99",
            f"≤ {ADDED_P99_MS:g} ms",
            text,
            added[2] <= ADDED_P99_MS,
        )
    )
    return told


def tell_media(data: Data) -> Told:
    """Processor time and memory beside FreeSWITCH's."""
    told = Told()
    rows = []
    rest, whole = data["rest"], data["whole"]
    for phase in data["phases"]:
        own, switch = (
            above_rest(phase["cores"], rest, who) / phase["calls"] for who in ("eslbot", "FreeSWITCH")
        )
        kb = phase["kb_per_call"]
        rows.append(
            (
                f"{phase['calls']} calls, {BOTS[phase['bot']]}",
                f"{own:.2%}",
                f"{switch:.2%}",
                f"{share(own, switch):.1f} %",
                f"{kb['eslbot']:.0f}",
                f"{kb['FreeSWITCH']:.0f}",
            )
        )
        told.verdicts.append(_share(BOTS[phase["bot"]], own, switch, "of a core a call"))
    seconds, calls = whole["seconds"], whole["calls"]
    own, switch = (
        above_rest(whole["cores"], rest, who) * seconds / calls * 1000 for who in ("eslbot", "FreeSWITCH")
    )
    name = f"{calls} whole calls of {whole['call_seconds']:.1f} s, "
    name += f"{whole['spoken_seconds']:g} s of them speech"
    rows.append((name, f"{own:.0f} ms", f"{switch:.0f} ms", f"{share(own, switch):.1f} %", "", ""))
    told.verdicts.append(
        Verdict(
            f"CPU of eslbot beside FreeSWITCH's, whole calls of {whole['call_seconds']:.0f} s",
            f"≤ {SHARE_PERCENT:g} %",
            f"{share(own, switch):.1f} % ({own:.0f} of {switch:.0f} ms a call)",
            share(own, switch) <= SHARE_PERCENT,
        )
    )
    head = ("", "eslbot, CPU a call", "FreeSWITCH", "share", "eslbot, kB a call", "FreeSWITCH")
    told.text = table(head, rows) + (
        f"\nOn {data['switch']}, two workers; the caller speaks in every call. Above what both use with no "
        f"call: eslbot {rest['eslbot']:.2%} of a core, FreeSWITCH {rest['FreeSWITCH']:.2%}. The upper rows "
        "are calls that are up, in percent of a core; whole calls are from before the first INVITE until "
        "behind the last BYE, set-up and hand-off by TLS included. kB of anonymous memory, what earlier "
        "calls have left included; eslbot's few calls here fit into what it has, see `hold` for its memory.\n"
    )
    return told


def above_rest(cores: dict[str, float], rest: dict[str, float], who: str) -> float:
    """Cores used beyond those without any call; never below nothing."""
    return max(0.0, cores[who] - rest[who])


def share(own: float, switch: float) -> float:
    """``own`` in percent of the switch's."""
    return 100 * own / switch if switch else float("nan")


def _share(what: str, own: float, switch: float, unit: str) -> Verdict:
    found = share(own, switch)
    return Verdict(
        f"CPU of eslbot beside FreeSWITCH's, {what}",
        f"≤ {SHARE_PERCENT:g} %",
        f"{found:.1f} % ({own:.2%} and {switch:.2%} {unit})",
        found <= SHARE_PERCENT,
    )
