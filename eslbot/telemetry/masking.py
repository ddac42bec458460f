"""Masks phone numbers: enough is left to tell two calls apart, too little to call back."""

from __future__ import annotations

import re

#: What stands for a digit that is not shown.
HIDDEN = "•"
#: Digits that are shown at the beginning (the country) and at the end.
HEAD, TAIL = 4, 2
#: A number shorter than this would be as good as told, and is hidden as a whole.
SHORTEST = 10
#: No number has more digits than this; of a longer text only so much is told that it was long.
LONGEST = 24
_SHOWN = frozenset("0123456789")
#: A number within a text: a refusal quotes what the caller wrote. An id's digits may go with it.
_WITHIN = re.compile(r"\+?\d{7,}")


def masked(number: str) -> str:
    """``number`` with its first 4 and last 2 characters, the rest hidden: ``0091••••••••80``.

    One of fewer than 10 characters is hidden as a whole. The caller chooses the text, so nothing of it is
    shown but ASCII digits and a leading ``+``, and the result is never longer than 24 characters.
    """
    length = min(len(number), LONGEST)
    if len(number) < SHORTEST:
        return HIDDEN * length
    head = "".join(_shown(character, leads=not place) for place, character in enumerate(number[:HEAD]))
    tail = "".join(_shown(character) for character in number[-TAIL:])
    return head + HIDDEN * (length - HEAD - TAIL) + tail


def masked_text(text: str) -> str:
    """``text``, the numbers in it masked."""
    return _WITHIN.sub(lambda found: masked(found[0]), text)


def _shown(character: str, leads: bool = False) -> str:
    return character if character in _SHOWN or (leads and character == "+") else HIDDEN
