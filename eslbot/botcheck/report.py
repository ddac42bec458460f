"""The result, for people, for programs, and for a CI's page of tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from textwrap import wrap
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from eslbot.botcheck.findings import Grade
from eslbot.botcheck.run import UNREACHED, Result
from eslbot.botcheck.target import Target
from eslbot.doctor.findings import clean

#: Of the JSON; a field may be added without a new one.
VERSION = 1
#: Characters of a line for people.
WIDTH = 110
PAGE = "docs/bot-protocol.md"

_COLOURS = {
    Grade.PASS: 32,
    Grade.UNSEEN: 35,
    Grade.NOT_APPLICABLE: 36,
    Grade.WARN: 33,
    Grade.FAIL: 31,
}
_SHORT = {Grade.NOT_APPLICABLE: "n/a"}


def exit_code(results: Sequence[Result], *, strict: bool = False) -> int:
    """1 where a check failed, with ``strict`` or warned; else 0. (2: it could not begin.)"""
    bad = {Grade.FAIL, Grade.WARN} if strict else {Grade.FAIL}
    return int(any(result.verdict.grade in bad for result in results))


def counts(results: Sequence[Result]) -> dict[str, int]:
    """How many there are of each grade."""
    grades = [result.verdict.grade for result in results]
    return {grade.value: grades.count(grade) for grade in Grade}


def where(section: str) -> str:
    """Where a check's section is to be read."""
    return section if section.startswith("docs/") else f"{PAGE}, “{section}”"


def remedy_of(result: Result) -> str:
    """What to do; empty where nothing is to be done."""
    if result.verdict.grade not in (Grade.FAIL, Grade.WARN):
        return ""
    return result.verdict.remedy or result.check.remedy


def text(target: Target, results: Sequence[Result], *, colour: bool = False) -> Iterator[str]:
    """Lines: one for what is fine; what was seen, what to do and where to read for the rest; a verdict."""
    width = max((len(result.check.name) for result in results), default=0)
    margin = " " * (12 + width)
    yield f"{clean(target.shown)}, protocol {target.bot.protocol}, {target.bot.sample_rate} Hz"
    reached = [result for result in results if result.verdict is not UNREACHED]
    for result in reached:
        grade = result.verdict.grade
        word = f"{_SHORT.get(grade, grade.value):8}"
        mark = f"\x1b[{_COLOURS[grade]}m{word}\x1b[0m" if colour else word
        first, *more = wrap(clean(result.verdict.told), WIDTH - len(margin)) or [""]
        yield f"{mark}  {result.check.name:{width}}  {first}"
        yield from (margin + line for line in more)
        if remedy := clean(remedy_of(result)):
            for what, said in (("do", remedy), ("see", where(result.check.section))):
                first, *more = wrap(said, WIDTH - len(margin) - 5)
                yield f"{margin}{what + ':':4} {first}"
                yield from (f"{margin}     {line}" for line in more)
    if len(reached) < len(results):
        yield f"not seen  {len(results) - len(reached)} other checks: {UNREACHED.told}"
    yield _verdict(counts(results))


def _verdict(found: Mapping[str, int]) -> str:
    wrong = [
        f"{found[word]} {told}" for word, told in (("fail", "failed"), ("warn", "warned")) if found[word]
    ]
    rest = f"{found['pass']} passed, {found['not seen']} not seen, {found['not applicable']} not applicable"
    return f"{' and '.join(wrong) or 'nothing to mend'} ({rest})"


def as_document(target: Target, results: Sequence[Result], *, strict: bool = False) -> Mapping[str, Any]:
    """For ``--json``."""
    return {
        "version": VERSION,
        "url": clean(target.shown),
        "protocol": target.bot.protocol,
        "sample_rate": target.bot.sample_rate,
        "exit_code": exit_code(results, strict=strict),
        "counts": counts(results),
        "checks": [
            {
                "check": result.check.name,
                "grade": result.verdict.grade.value,
                "proves": result.check.proves,
                "told": clean(result.verdict.told),
                "remedy": clean(remedy_of(result)),
                "section": where(result.check.section),
                "seconds": round(result.seconds, 3),
            }
            for result in results
        ],
    }


def as_junit(target: Target, results: Sequence[Result], now: datetime, *, strict: bool = False) -> bytes:
    """An XML file as JUnit's: a test case a check; what was not seen, or has no word, is skipped."""
    bad = {Grade.FAIL, Grade.WARN} if strict else {Grade.FAIL}
    skipped = {Grade.UNSEEN, Grade.NOT_APPLICABLE}
    figures = {
        "tests": str(len(results)),
        "failures": str(sum(result.verdict.grade in bad for result in results)),
        "errors": "0",
        "skipped": str(sum(result.verdict.grade in skipped for result in results)),
        "time": f"{sum(result.seconds for result in results):.3f}",
    }
    root = Element("testsuites", {"name": "eslbot bot check", **figures})
    suite = SubElement(
        root,
        "testsuite",
        {
            "name": f"{clean(target.shown)} ({target.bot.protocol})",
            **figures,
            "timestamp": now.strftime("%Y-%m-%dT%H:%M:%S"),
        },
    )
    for result in results:
        _case(suite, target, result, bad, skipped)
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def _case(suite: Element, target: Target, result: Result, bad: set[Grade], skipped: set[Grade]) -> None:
    check, grade, told = result.check, result.verdict.grade, clean(result.verdict.told)
    case = SubElement(
        suite,
        "testcase",
        {
            "classname": f"eslbot.bot.{target.bot.protocol}",
            "name": check.name,
            "time": f"{result.seconds:.3f}",
        },
    )
    advice = f"{check.proves}\ndo: {clean(remedy_of(result))}\nsee: {where(check.section)}"
    if grade in bad:
        SubElement(case, "failure", {"message": told, "type": grade.value}).text = f"{told}\n{advice}"
    elif grade in skipped:
        SubElement(case, "skipped", {"message": f"{grade.value}: {told}"})
    else:
        SubElement(case, "system-out").text = f"warning: {told}\n{advice}" if grade is Grade.WARN else told
