"""The rows of the report: what each says of the figures, and whether that meets its bar.

The bars are those of the issue "The line". A row's text names how many samples a figure has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.speech.cases import Figures
from eslbot.sim.audio import RATE
from eslbot.sim.loadtest.tables import percentile

#: Figures of one subject, by case.
Cases = Mapping[str, Figures]
#: A text and whether the bar is met.
Judgement = tuple[str, bool]

BURSTS = ("burst-1000", "burst-200", "burst-20")
PACED = ("paced-20", "paced-40")
JITTER = ("jitter-100",)
#: Seconds above a bar that are the measure's own: the kernel's clock and a packet's 125 µs.
SLACK = 0.0005


@dataclass(frozen=True)
class Row:
    """``key`` for ``--only``; ``case`` is what has to be measured; ``both``: on the commit before, too."""

    key: str
    measure: str
    bar: str
    case: str
    judge: Callable[[Figures], Judgement]
    both: bool = False


def times(values: Sequence[float]) -> str:
    """Median, p99 and number."""
    if not values:
        return "nothing (n 0)"
    p50, p99 = percentile(values, 50) * 1000, percentile(values, 99) * 1000
    return f"p50 {p50:.1f}, p99 {p99:.1f} ms (n {len(values):,})"


def within(values: Sequence[float], p50: float, p99: float) -> bool:
    """Whether these percentiles, in milliseconds, are kept."""
    return bool(values) and percentile(values, 50) * 1000 <= p50 and percentile(values, 99) * 1000 <= p99


def wrong(sound: Figures) -> str:
    """What was wrong with utterances."""
    text = f"{sound['gaps']} gaps ({sound['dry']} of them late packets), {sound['jumps']} jumps"
    text += f", {_ms(sound['lost'])} lost, {_ms(sound['repeated'])} repeated"
    if sound["foreign"]:
        text += f", {_ms(sound['foreign'])} of something else"
    return f"{text} in {sound['utterances']} utterances"


def is_right(sound: Figures) -> bool:
    """Whether nothing was wrong with them, and there were some."""
    faults = ("gaps", "jumps", "lost", "repeated", "foreign", "unheard")
    return sound["utterances"] > 0 and not any(sound[fault] for fault in faults)


def _ms(samples: int) -> str:
    return f"{samples * 1000 / RATE:.0f} ms"


def _frames(samples: int) -> str:
    frames = samples / 160
    return f"{frames:.0f} frames" if frames == int(frames) else f"{frames:.1f} frames"


def _pooled(figures: Figures, kinds: Iterable[str], key: str) -> list[float]:
    return [value for kind in kinds for value in figures["kinds"].get(kind, {}).get(key, [])]


def _first(kinds: Sequence[str], p50: float, p99: float) -> Callable[[Figures], Judgement]:
    def judge(figures: Figures) -> Judgement:
        values = _pooled(figures, kinds, "first")
        headless = sum(figures["kinds"][kind]["headless"] for kind in kinds if kind in figures["kinds"])
        each = "; ".join(
            f"{kind.partition('-')[2]} ms: {times(_pooled(figures, [kind], 'first'))}" for kind in kinds
        )
        text = f"{times(values)}; {each}" if len(kinds) > 1 else times(values)
        text += f"; {headless} without their first sample" if headless else ""
        return text, within(values, p50, p99) and not headless

    return judge


def _whole(figures: Figures) -> Judgement:
    texts, met = [], True
    for name, kinds in (("bursts", BURSTS), ("jitter", JITTER), ("paced", PACED)):
        sounds = [figures["kinds"][kind]["sound"] for kind in kinds if kind in figures["kinds"]]
        sound = {key: sum(some[key] for some in sounds) for key in sounds[0]}
        texts.append(f"{name}: {wrong(sound)}")
        met = met and (name == "paced" or is_right(sound))
    return "; ".join(texts), met


def _uplink(figures: Figures) -> Judgement:
    caller = figures["caller"]
    kinds = {kind: some["speaking"] for kind, some in figures["kinds"].items() if some["speaking"]}
    if not kinds:
        return f"silent: {times(caller['silent'])}; no frame was sent while a caller heard the bot", False
    worst = max(kinds, key=lambda kind: percentile(kinds[kind], 99))
    text = f"silent: {times(caller['silent'])}; speaking: {times(caller['speaking'])}; "
    text += f"worst ({worst}): {times(kinds[worst])}"
    return text, all(within(values, 18, 25) for values in (caller["silent"], *kinds.values()))


def _lost(figures: Figures) -> Judgement:
    caller = figures["caller"]
    lost, utterances = (
        caller["lost_speaking"],
        sum(k["sound"]["utterances"] for k in figures["kinds"].values()),
    )
    text = f"{_frames(lost)} at {utterances} utterances ({lost / 160 / max(1, utterances):.1f} each), "
    text += f"{_frames(caller['lost'] - lost)} else, {_frames(caller['repeated'])} repeated, "
    return text + f"of {caller['frames']:,}", not lost and caller["frames"] > 0


def _times_of(key: str, p50: float, p99: float) -> Callable[[Figures], Judgement]:
    return lambda figures: (times(figures[key]), within(figures[key], p50, p99))


def _cores(figures: Figures) -> Judgement:
    cores = figures["cores"]
    own, relays, switch = (sum(cores[key]) / len(cores[key]) for key in ("own", "relays", "freeswitch"))
    text = f"eslbot {own:.2%} (relays {relays:.2%}), FreeSWITCH {switch:.2%} of a core a call"
    text += f" ({figures['calls']} calls)"
    return text, own <= 0.005 and switch <= 0.011


def _kills(figures: Figures) -> Judgement:
    sound, silences = figures["sound"], figures["silences"]
    longest = max([*silences, *figures["dry"]], default=0.0)
    text = f"{figures['kills']} kills in {figures['seconds']:.0f} s: {len(silences)} silences, "
    text += f"p50 {percentile(silences, 50) * 1000:.0f} ms, " if silences else ""
    text += f"longest {longest * 1000:.0f} ms, {len(figures['dry'])} times late packets; "
    text += f"{_ms(sound['lost'])} lost, {_ms(sound['repeated'])} repeated; "
    text += f"{figures['connections']} connections of the bot's, `resumed` {figures['resumed']} times; "
    text += f"caller: {_frames(figures['caller']['lost'])} lost"
    met = longest <= 0.020 + SLACK and not (sound["lost"] or sound["repeated"] or sound["foreign"])
    return text, met and figures["connections"] == figures["calls"] and not figures["resumed"]


def _hup(figures: Figures) -> Judgement:
    lost = figures["caller"]["lost_speaking"]
    text = f"{figures['calls']} calls, {figures['new_controllers']} new controllers: "
    text += f"{wrong(figures['sound'])}; caller: {_frames(lost)} lost; {figures['connections']} connections"
    met = is_right(figures["sound"]) and figures["new_controllers"] > 0
    return text, met and figures["connections"] == figures["calls"]


def _relay(figures: Figures) -> Judgement:
    back, hears, calls = figures["back"], figures["hears"], figures["calls"]
    text = f"{figures['kills']} kills, {calls} calls: bot back {times(back)}, hears {times(hears)}; "
    text += f"said before: {wrong(figures['said_before'])}; said after: {wrong(figures['said_after'])}; "
    text += f"caller: {figures['caller']['lost'] / 160 / max(1, calls):.0f} frames lost a call; "
    text += f"{figures['lost_customers']} customers lost"
    met = len(back) == calls and max(back) <= 1.0 and not figures["lost_customers"]
    return text, met and is_right(figures["said_before"]) and is_right(figures["said_after"])


def _crowd(figures: Figures) -> Judgement:
    texts, met = [], True
    for kind, some in figures["kinds"].items():
        texts.append(f"{kind.partition('-')[2]}: {wrong(some['sound'])}, first {times(some['first'])}")
        met = met and is_right(some["sound"])
    caller = figures["caller"]
    texts.append(f"{_cores(figures)[0]}, callers and bots {figures['cores']['measure'][0]:.0%} in all")
    texts.append(f"caller → bot {times(caller['speaking'])}, {_frames(caller['lost'])} lost")
    return "; ".join(texts), met


def _full(figures: Figures) -> Judgement:
    texts, met = [], True
    for side in ("freeswitch", "relay"):
        some = figures.get(side)
        if some is None:
            continue
        during, after = some["during"], some["after"]
        lost = [during["sound"][key] + after["sound"][key] for key in ("lost", "repeated", "foreign")]
        texts.append(
            f"at {side}'s side: during {wrong(during['sound'])}, first {times(during['first'])}; "
            f"from 2 s after: first {times(after['first'])}, caller → bot {times(after['caller_late'])}; "
            f"caller: {_frames(some['caller']['lost'])} lost"
        )
        met = met and not any(lost) and within(after["first"], 25, 40)
        met = met and within(after["caller_late"], 18, 25) and not some["caller"]["lost"]
    return " | ".join(texts), met and bool(texts)


def _lines(prefixes: Sequence[str]) -> Callable[[Figures], Judgement]:
    def judge(figures: Figures) -> Judgement:
        texts, met = [], not figures["lost_customers"]
        for name, some in figures["lines"].items():
            if not name.startswith(tuple(prefixes)):
                continue
            sound, late = some["sound"], some["caller_late"]
            right = is_right(sound) and all(0.98 <= speed <= 1.02 for speed in some["speed"])
            met = met and right
            speeds = f"{min(some['speed'], default=0):.2f}–{max(some['speed'], default=0):.2f}"
            what = "right" if right else wrong(sound)
            texts.append(
                f"{name}: {what} ({sound['utterances']} utterances), speed {speeds}, first p50 "
                f"{percentile(some['first'], 50) * 1000:.0f} ms; caller: {_frames(some['caller_lost'])} lost"
                f", p50 {percentile(late, 50) * 1000:.0f} ms"
            )
        return "; ".join(texts), met and bool(texts)

    return judge


def _seams(figures: Figures) -> Judgement:
    text = f"{figures['seconds']:.0f} s: {wrong(figures['sound'])}, speed {figures['speed'][0]:.4f}; "
    text += (
        f"caller: {figures['caller']['lost'] / 160:.0f} frames lost, {times(figures['caller']['speaking'])}"
    )
    return text, is_right(figures["sound"]) and not figures["lost_customers"]


#: The cases.
TALK, CROWD, KILLS, HUP = "conversation", "crowd", "kills", "hup"
RELAY, ODD, SEAMS, FULL = "relay", "odd-lines", "seams", "full"

ROWS = (
    Row(
        "burst",
        "first sample → RTP, bot in bursts (1 s, 200 ms, 20 ms messages)",
        "p50 ≤ 25, p99 ≤ 40 ms",
        TALK,
        _first(BURSTS, 25, 40),
        True,
    ),
    Row(
        "paced",
        "the same, bot paced exactly (20, 40 ms), from its second utterance on",
        "p50 ≤ 40, p99 ≤ 60 ms",
        TALK,
        _first(PACED, 40, 60),
        True,
    ),
    Row(
        "jitter",
        "the same, ±30 ms of jitter in 100 ms chunks",
        "p50 ≤ 80, p99 ≤ 110 ms",
        TALK,
        _first(JITTER, 80, 110),
        True,
    ),
    Row(
        "gaps",
        "gaps ≥ 10 ms and jumps: 10 s with ±30 ms of jitter from the second utterance on; bursts always",
        "0",
        TALK,
        _whole,
        True,
    ),
    Row(
        "uplink",
        "caller → bot, RTP in → frame out, bot silent and speaking",
        "p50 ≤ 18, p99 ≤ 25 ms",
        TALK,
        _uplink,
        True,
    ),
    Row(
        "turn",
        "own media path of a turn: caller's RTP → bot → its first RTP, bursts",
        "p50 ≤ 40, p99 ≤ 60 ms",
        TALK,
        _times_of("turn", 40, 60),
        True,
    ),
    Row("lost", "frames of the caller lost while the bot speaks", "0", TALK, _lost, True),
    Row(
        "clear",
        "bot's `clear` → last audible packet",
        "p50 ≤ 25, p99 ≤ 40 ms",
        TALK,
        _times_of("clear", 25, 40),
        True,
    ),
    Row(
        "cpu",
        "CPU a call in conversation",
        "eslbot ≤ 0.5 % of a core, FreeSWITCH ≤ 1.1 %",
        TALK,
        _cores,
        True,
    ),
    Row(
        "kill",
        "controller killed in mid-word, again and again in one call",
        "silence ≤ 20 ms each, nothing lost or repeated, bot undisturbed",
        KILLS,
        _kills,
        True,
    ),
    Row("hup", "HUP under 20 speaking calls", "nothing heard", HUP, _hup, True),
    Row(
        "relay",
        "relay killed in mid-speech",
        "speech goes on, bot back ≤ 1 s, 0 customers lost",
        RELAY,
        _relay,
    ),
    Row(
        "crowd", "60 calls speaking at once, bot and callers on the same cores", "0 gaps", CROWD, _crowd, True
    ),
    Row("hold", "hold 3 s and back", "right speech at right speed, 0 gaps", ODD, _lines(("hold",)), True),
    Row(
        "ptime",
        "packets of 10, 30, 40, 60 ms, with and without an SDP that says so",
        "right speech at right speed, 0 gaps",
        ODD,
        _lines(tuple("0123456789")),
        True,
    ),
    Row(
        "silent",
        "PBX silent for 5 s while the bot speaks",
        "right speech at right speed, 0 gaps",
        ODD,
        _lines(("silent",)),
        True,
    ),
    Row(
        "seams",
        "a long call over the line file's seams",
        "right speech at right speed, 0 gaps",
        SEAMS,
        _seams,
    ),
    Row(
        "full",
        "two busy loops for 20 s on the core of FreeSWITCH, then of the relay",
        "nothing lost or repeated, latency back within 2 s",
        FULL,
        _full,
    ),
)
