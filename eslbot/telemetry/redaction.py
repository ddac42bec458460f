"""Redaction: takes the secrets of a configuration out of any text, however they are spelt there.

Others tell us what we told them: an Ameyo quotes the token in its answer, a bot a header, a database driver
its URL. They quote it URL-encoded, as JSON, as HTML or in base64, and whatever holds the quotation (a log
line, a journal) may escape it once more. So a text is looked through as it is, and again as what it stands
for when its escapes are taken back, level by level; base64 and hexadecimal have no escapes and are looked for
as they would be.

The process has one :class:`Redactor`, put in place by :func:`protect`; :func:`redact` and :func:`beginning`
use it. A text of somebody else's that is cut is cut by :func:`beginning`: half a secret is found by nobody.
"""

from __future__ import annotations

import re
import sys
import traceback
from base64 import b64encode
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from html.entities import html5
from types import TracebackType

from eslbot.config.secrets import SHORTEST_SECRET
from eslbot.config.urls import MASK

#: How many times a text may be escaped: by who quotes it, by a gateway's page around that, and by us.
LEVELS = 4
#: Characters that one of a secret can become by two escapes: ``\\\\u002d`` and ``&amp;#x2d;`` are shorter.
SPELT = 12
#: Nearly every secret has RUN letters and digits in a row, and few words of a text have. Of such a row pieces
#: of PIECE characters are known, and are looked for at every STEP-th place of the text's rows: RUN characters
#: hold one of them wherever they begin. So it costs the same for one tenant and for hundreds.
RUN, PIECE, STEP = 12, 8, 5
#: With more secrets than this that have no such row it is cheaper to look first whether any may begin.
MANY = 150

#: Escapes by the character that they begin with.
_KINDS = {
    "%": r"%[0-9A-Fa-f]{2}",
    "\\": r"\\u[0-9A-Fa-f]{4}|\\x[0-9A-Fa-f]{2}|\\[^ux]",
    "&": r"&#[0-9]{1,7};?|&#[xX][0-9A-Fa-f]{1,6};?|&[A-Za-z][A-Za-z0-9]{1,31};",
}
_ESCAPE = re.compile("|".join(_KINDS.values()), re.DOTALL)
#: All but those of one kind. Where a secret's own last character begins an escape with what happens to stand
#: behind it, taking that back would hide the secret: ``0000<\\`` as HTML before a 0 is ``0000&lt;\\0``.
_WITHOUT = {
    kind: re.compile("|".join(other for key, other in _KINDS.items() if key != kind), re.DOTALL)
    for kind in _KINDS
}
_RUNS = re.compile(f"[0-9A-Za-z]{{{RUN},}}").findall
_URL_SAFE = str.maketrans("+/", "-_")
#: The last character of base64 that is not a secret's alone, and padding.
_BASE64_TAIL = re.compile(r"[A-Za-z0-9+/_-]?={0,2}")
_CONTROL = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f"}


class _Meanings(dict[str, str]):
    """What an escape stands for: one character, always; or itself, where it is none."""

    #: Others choose what is looked up, so what is kept is bounded.
    MOST = 4096

    def __missing__(self, escape: str) -> str:
        meaning = _meaning(escape)
        if len(self) < self.MOST:
            self[escape] = meaning
        return meaning


def _meaning(escape: str) -> str:
    if escape[0] == "%":
        return chr(int(escape[1:], 16))
    if escape[0] == "\\":
        return chr(int(escape[2:], 16)) if escape[1] in "ux" else _CONTROL.get(escape[1], escape[1])
    if escape[1] != "#":
        meaning = html5.get(escape[1:], escape)
        return meaning if len(meaning) == 1 else escape
    digits = escape[2:].rstrip(";")
    number = int(digits[1:], 16) if digits[0] in "xX" else int(digits)
    return chr(number) if number <= sys.maxunicode else escape


_meanings = _Meanings()


def _unescaped(text: str, escapes: re.Pattern[str] = _ESCAPE) -> str:
    """What ``text`` stands for, each escape in it taken back once; the very same where there is none."""
    if not ("%" in text or "\\" in text or "&" in text):
        return text
    plain = escapes.sub(lambda escape: _meanings[escape[0]], text)
    return text if plain == text else plain


class _Escapes:
    """Where the escapes of a text stand: in it, and their meanings in what :func:`_unescaped` makes of it."""

    def __init__(self, text: str, escapes: re.Pattern[str]) -> None:
        self._places, self._begins, self._ends = list[int](), list[int](), list[int]()
        less = 0
        for escape in escapes.finditer(text):
            if len(_meanings[escape[0]]) == 1:
                self._places.append(escape.start() - less)
                self._begins.append(escape.start())
                self._ends.append(escape.end())
                less += escape.end() - escape.start() - 1

    def span(self, begin: int, end: int) -> tuple[int, int]:
        """Where in the text stands what is at ``begin`` to ``end`` of its meaning; escapes as a whole."""
        first, last = bisect_right(self._places, begin) - 1, bisect_right(self._places, end - 1) - 1
        if first >= 0:
            place = self._places[first]
            begin = self._begins[first] if place == begin else self._ends[first] + begin - place - 1
        if last >= 0:
            end = self._ends[last] + end - self._places[last] - 1
        return begin, end


class Redactor:
    """Knows ``secrets``, and every usual spelling of them."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        plain = {form for secret in secrets for form in _spellings(secret)}
        plain |= {form for secret in plain for form in _in_hex(secret)}
        self._base64 = frozenset(form for secret in plain for form in _in_base64(secret))
        # The longest first: a shorter one may be a part of it.
        self._forms = sorted(plain | self._base64, key=len, reverse=True)
        self._pieces, self._odd = set[str](), list[str]()
        for form in self._forms:
            if rows := _RUNS(form):
                self._pieces |= {rows[0][place : place + PIECE] for place in range(STEP)}
            else:
                self._odd.append(form)
        self._head = len(self._odd[-1]) if self._odd else 0
        self._heads = frozenset(form[: self._head] for form in self._odd) if len(self._odd) > MANY else None
        #: Characters within which a secret ends that begins at a text's edge.
        self.margin = SPELT * max(map(len, self._forms), default=0)

    def redact(self, text: str) -> str:
        """``text``, each secret in it replaced by asterisks, its escapes and all."""
        if not (self._may_stand_in(text) or "\\" in text or "%" in text or "&" in text):
            return text  # as nearly all are
        spans = self.spans(text)
        return _without(text, spans) if spans else text

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Where in ``text`` secrets stand, in order and apart."""
        if not self._forms:
            return []
        found, above = self._found(text, _ESCAPE)
        kinds = {escape[0][0] for level in above for escape in _ESCAPE.finditer(level)}
        if len(kinds) > 1:
            for kind in kinds:
                found += self._found(text, _WITHOUT[kind])[0]
        return _merged(found)

    def _found(self, text: str, pattern: re.Pattern[str]) -> tuple[list[tuple[int, int]], list[str]]:
        """Where secrets stand when these escapes are taken back; and the texts in which there were some."""
        found: list[tuple[int, int]] = []
        above: list[str] = []
        escapes: list[_Escapes] = []
        while True:
            if self._may_stand_in(text):
                escapes += (_Escapes(level, pattern) for level in above[len(escapes) :])
                for begin, end in self._places(text):
                    for level in reversed(escapes):
                        begin, end = level.span(begin, end)
                    found.append((begin, end))
            plain = _unescaped(text, pattern)
            if plain is text or len(above) == LEVELS:
                return found, above
            above.append(text)
            text = plain

    def _may_stand_in(self, text: str) -> bool:
        pieces = self._pieces
        if pieces:
            for row in _RUNS(text):
                for place in range(0, len(row) - PIECE + 1, STEP):
                    if row[place : place + PIECE] in pieces:
                        return True
        if not self._odd:
            return False
        if self._heads is not None and self._heads.isdisjoint(_every(text, self._head)):
            return False
        return any(map(text.__contains__, self._odd))

    def _places(self, text: str) -> Iterator[tuple[int, int]]:
        for form in self._forms:
            place = text.find(form)
            while place >= 0:
                end = place + len(form)
                if form in self._base64:
                    tail = _BASE64_TAIL.match(text, end)
                    end = tail.end() if tail else end
                yield place, end
                place = text.find(form, end)


def _every(text: str, length: int) -> Iterator[str]:
    """What stands at each place of ``text``, cut without a turn of Python's loop for each."""
    return map(text.__getitem__, map(slice, range(len(text)), range(length, len(text) + length)))


def _spellings(secret: str) -> set[str]:
    """What may be left of ``secret`` when escapes are taken back: of its own as well, where it has some."""
    forms, form = {secret}, secret
    for _ in range(LEVELS):
        form = _unescaped(form)
        forms.add(form)
    forms |= {form.replace(" ", "+") for form in forms}  # in a URL's query
    forms |= {form.encode("utf-8", "surrogatepass").decode("latin-1") for form in forms}  # of %C3%A9
    return {form for form in forms if len(form) >= SHORTEST_SECRET}


def _in_hex(secret: str) -> Iterator[str]:
    """As a dump shows it."""
    digits = secret.encode("utf-8", "surrogatepass").hex()
    yield digits
    yield digits.upper()


def _in_base64(secret: str) -> Iterator[str]:
    """The characters that are the same whatever stands before and behind ``secret`` in the encoded text."""
    data = secret.encode("utf-8", "surrogatepass")
    for before in range(3):
        first, last = -(-before * 8 // 6), (before + len(data)) * 8 // 6
        stable = b64encode(bytes(before) + data).decode()[first:last]
        if len(stable) >= SHORTEST_SECRET:
            yield stable
            yield stable.translate(_URL_SAFE)


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for begin, end in sorted(spans):
        if merged and begin < merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((begin, end))
    return merged


def _without(text: str, spans: list[tuple[int, int]]) -> str:
    parts, end = list[str](), 0
    for begin, behind in spans:
        parts += text[end:begin], MASK
        end = behind
    return "".join((*parts, text[end:]))


# -- of this process -----------------------------------------------------------------------------------------


_known: frozenset[str] = frozenset()
_redactor = Redactor()


def protect(secrets: frozenset[str]) -> None:
    """From here on these are the secrets of this process, and of those that it forks.

    What ends the process is told without them as well.
    """
    global _known, _redactor
    if secrets != _known:
        _known, _redactor = secrets, Redactor(secrets)
    sys.excepthook = _print_redacted


def redact(text: str) -> str:
    """``text`` without the secrets of this process."""
    return _redactor.redact(text)


def beginning(text: str, most: int, own: Redactor | None = None) -> str:
    """The first ``most`` characters of ``text``, or fewer, without this process's secrets and ``own``'s.

    Not more of a long text is looked at than a secret needs that begins in what is shown.
    """
    redactors = (_redactor,) if own is None else (_redactor, own)
    read = most + max(redactor.margin for redactor in redactors)
    spans = _merged([span for redactor in redactors for span in redactor.spans(text[:read])])
    if len(text) > read:  # what is masked makes room for the rest, where half a secret may stand
        text, spans = text[:most], [span for span in spans if span[0] < most]
    return (_without(text, spans) if spans else text)[:most]


def printable(text: str, most: int = 200) -> str:
    """The beginning of a word of others', without secrets, fit for a log line and a channel variable."""
    told = beginning(text, most)
    return "".join(character if character.isprintable() else " " for character in told)


def _print_redacted(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    sys.stderr.write(redact("".join(traceback.format_exception(kind, error, trace))))
