"""Whether the dialplan that FreeSWITCH has loaded is the one that the configuration renders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from xml.etree.ElementTree import Element

from eslbot.doctor.checks.hang_ups import CLOCKS, ENDS
from eslbot.doctor.findings import Finding, error, ok
from eslbot.doctor.site import Site

#: Variables that ``silence`` and ``hang-ups`` look at; ``controllers`` looks at ``socket``.
_ELSEWHERE = frozenset({"send_silence_when_idle", "media_timeout"}) | CLOCKS
#: Lines of each kind that are told of a context.
_MOST = 2


def loaded(site: Site) -> Iterator[Finding]:
    """Context by context; the first differences are told."""
    reload = f"{site.render}, then `fs_cli -x reloadxml`"
    sound = True
    for name in site.expected.contexts:
        looked_at, running = f"the dialplan's context {name}", site.switch.contexts.get(name)
        if running is None:
            sound = False
            yield error(looked_at, "is not loaded", "a call whose next context is missing is hung up", reload)
            continue
        wanted, found = _lines(site.expected.context(name)), _lines(running)
        if wanted != found:
            sound = False
            missing = list((Counter(wanted) - Counter(found)).elements())[:_MOST]
            more = list((Counter(found) - Counter(wanted)).elements())[:_MOST]
            told = [f"without: {line}" for line in missing] + [f"with: {line}" for line in more]
            yield error(
                looked_at,
                "; ".join(told) or "the same actions in another order",
                "each line of it is there so that no call is lost or hung up",
                reload,
            )
    if sound:
        yield ok("the dialplan", "the one in force is the rendered one")


def _lines(context: Element) -> list[str]:
    lines = []
    for node in context.iter():
        if node is context or _is_elsewhere(node):
            continue
        attributes = "".join(f' {name}="{value}"' for name, value in sorted(node.attrib.items()))
        lines.append(f"<{node.tag}{attributes}>")
    return lines


def _is_elsewhere(node: Element) -> bool:
    if node.tag != "action":
        return False
    application, variable = node.get("application", ""), node.get("data", "").partition("=")[0]
    return application in ENDS | {"socket"} or (application in ("set", "export") and variable in _ELSEWHERE)
