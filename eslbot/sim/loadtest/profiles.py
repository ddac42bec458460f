"""What is placed when, and when a ramp stops."""

from __future__ import annotations

from dataclasses import dataclass

#: New calls a second that a SIPp of ours is asked for at most, and calls of one run.
MOST_RATE, MOST_CALLS = 200.0, 20_000


class Unusable(ValueError):
    """A plan that cannot be made; the text names the option and what to give instead."""


@dataclass(frozen=True)
class Step:
    """``calls`` new calls, ``rate`` of them a second; ``stay`` more seconds belong to the step."""

    rate: float
    calls: int
    stay: float = 0.0

    @property
    def seconds(self) -> float:
        """How long the step lasts."""
        return self.calls / self.rate + self.stay

    @property
    def name(self) -> str:
        """For a table."""
        return f"{self.rate:g}/s"


@dataclass(frozen=True)
class Plan:
    """The steps, and how long the bot (or the caller) of each call keeps it."""

    profile: str
    steps: tuple[Step, ...]
    call_seconds: float

    @property
    def calls(self) -> int:
        """All of them."""
        return sum(step.calls for step in self.steps)

    @property
    def at_once(self) -> int:
        """How many may be up at the same time, at most."""
        fastest = max(step.rate for step in self.steps)
        return min(self.calls, int(fastest * (self.call_seconds + 2)) + 1)


def rate(per_second: float, seconds: float, call_seconds: float) -> Plan:
    """The same rate all the time."""
    return _checked(Plan("rate", (_step(per_second, seconds),), call_seconds))


def ramp(first: float, last: float, steps: int, seconds: float, call_seconds: float) -> Plan:
    """From ``first`` to ``last`` calls a second in ``steps`` steps of ``seconds`` each."""
    if last < first:
        raise Unusable(f"--to {last:g} is below --from {first:g}: a ramp goes up")
    if steps > 1 and last == first:
        raise Unusable(f"--from and --to are both {first:g}: that is `rate`, not a ramp")
    rise = (last - first) / max(1, steps - 1)
    rates = [round(first + rise * number, 1) for number in range(steps)]
    return _checked(Plan("ramp", tuple(_step(r, seconds) for r in rates), call_seconds))


def hold(calls: int, per_second: float, seconds: float) -> Plan:
    """``calls`` calls, begun ``per_second`` a second; all of them are up for ``seconds``."""
    step = Step(per_second, calls, seconds)
    return _checked(Plan("hold", (step,), step.seconds))


def _step(per_second: float, seconds: float) -> Step:
    calls = round(per_second * seconds)
    if calls < 1:
        raise Unusable(f"{per_second:g} calls/s for {seconds:g} s are no call: give a longer time or a rate")
    return Step(per_second, calls)


def _checked(plan: Plan) -> Plan:
    for step in plan.steps:
        if not 0.1 <= step.rate <= MOST_RATE:
            raise Unusable(f"{step.rate:g} calls/s: SIPp is asked for 0.1 to {MOST_RATE:g} here")
    if plan.calls > MOST_CALLS:
        raise Unusable(f"{plan.calls} calls are more than the {MOST_CALLS} of one run: shorten it")
    return plan


@dataclass(frozen=True)
class Limits:
    """What ends a ramp: failed calls in percent, and 99th percentiles in seconds.

    ``max_setup`` is of INVITE → 200, ``max_handoff`` of the bot's end → POST.
    """

    max_failures: float
    max_setup: float
    max_handoff: float

    def broken(
        self, begun: int, failed: int, setup_p99: float | None, handoff_p99: float | None = None
    ) -> str | None:
        """Which limit a step breaks, in words; None where none. No call begun breaks one, too.

        The percentiles are None where there is nothing to take them of.
        """
        if not begun:
            return "no call was begun"
        share = 100 * failed / begun
        if share > self.max_failures:
            return f"{share:.1f} % of the calls failed, more than {self.max_failures:g} %"
        for what, p99, bound in (
            ("INVITE → 200", setup_p99, self.max_setup),
            ("bot's end → POST", handoff_p99, self.max_handoff),
        ):
            if p99 is not None and p99 > bound:
                return f"{what} took {p99 * 1000:.0f} ms at p99, more than {bound * 1000:.0f} ms"
        return None
