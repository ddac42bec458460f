"""A secret is found in every usual spelling, and nothing else is taken for one."""

from __future__ import annotations

import html
import json
import sys
import time
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from dataclasses import replace
from urllib.parse import quote, quote_plus, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eslbot.config import Ledger, Secret
from eslbot.config.secrets import secrets_of
from eslbot.config.urls import MASK
from eslbot.telemetry.redaction import Redactor, beginning, protect, redact
from tests.unit.test_logs import BOT, CONFIG, WORKSPACE

#: With every character that some spelling escapes.
SECRET = "to-k'en/7+ÿ \"<&>\\%41=91ab"
PLAIN = "ameyo-token-91ab"

#: How others write down what they were told.
SPELLINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "URL": lambda text: quote(text, safe=""),
    "URL path": quote,
    "URL query": quote_plus,
    "URL, lower case": lambda text: (
        quote(text, safe="").lower()
        if text.islower()
        else quote(text, safe="").replace("%2F", "%2f").replace("%3C", "%3c")
    ),
    "JSON": lambda text: json.dumps(text)[1:-1],
    "JSON with slashes escaped": lambda text: json.dumps(text)[1:-1].replace("/", "\\/"),
    "JSON, all of it escaped": lambda text: "".join(f"\\u{ord(c):04x}" for c in text),
    "JSON, escaped in upper case": lambda text: "".join(f"\\u{ord(c):04X}" for c in text),
    "HTML": html.escape,
    "HTML by number": lambda text: "".join(f"&#{ord(c)};" for c in text),
    "HTML by hexadecimal number": lambda text: "".join(f"&#x{ord(c):X};" for c in text),
    "repr": lambda text: repr(text)[1:-1],
    "repr of bytes": lambda text: repr(text.encode())[2:-1],
    "base64": lambda text: b64encode(text.encode()).decode(),
    "base64 for URLs": lambda text: urlsafe_b64encode(text.encode()).decode(),
    "base64 without padding": lambda text: urlsafe_b64encode(text.encode()).decode().rstrip("="),
    "base64 of a login": lambda text: b64encode(f"user:{text}".encode()).decode(),
    "base64 of more": lambda text: b64encode(f"a{text}!".encode()).decode(),
    "JSON in JSON": lambda text: json.dumps(json.dumps(text)),
    "a URL in HTML in JSON": lambda text: json.dumps(html.escape(quote(text))),
    "hexadecimal": lambda text: text.encode().hex(),
    "hexadecimal in upper case": lambda text: text.encode().hex().upper(),
    "URL twice": lambda text: quote(quote(text, safe=""), safe=""),
}


@pytest.mark.parametrize(
    "many", [pytest.param(0, id="few"), pytest.param(1000, id="many", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("secret", [SECRET, PLAIN, "p@ss/1"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_secret_is_found_in_every_usual_spelling(spelling: str, secret: str, many: int) -> None:
    protect(frozenset({secret, *(f"token-of-{number}" for number in range(many))}))
    spelt = SPELLINGS[spelling](secret)
    told = redact(f'{{"detail": "before {spelt} behind"}}')
    assert told.startswith('{"detail": "before ')
    assert told.endswith(' behind"}')
    assert MASK in told
    # Of base64 the characters at the edges are partly somebody else's.
    at_the_edges = 6 if "base64" in spelling else 0
    assert len(told) <= len(f'{{"detail": "before {MASK} behind"}}') + at_the_edges + 6
    if not at_the_edges:
        assert told.count(MASK) == 1


@given(
    st.text(min_size=6, max_size=40, alphabet=st.characters(min_codepoint=33, max_codepoint=126)),
    st.lists(
        st.sampled_from([s for s in SPELLINGS if "base64" not in s and not s.startswith("hexadecimal")]),
        max_size=2,
    ),
    st.text(max_size=20),
    st.text(max_size=20),
)
def test_whatever_stands_around_it(secret: str, spellings: list[str], before: str, behind: str) -> None:
    spelt = secret
    for spelling in spellings:
        spelt = SPELLINGS[spelling](spelt)
    assert spelt not in Redactor({secret}).redact(before + spelt + behind) or spelt in MASK


@pytest.mark.parametrize(
    ("secret", "text"),
    [
        ("0000<\\", "0000&lt;\\0"),
        ("u0041<secret", "\\u0041&lt;secret"),
        ("0000<%", "0000&lt;%41"),
        ("0000%<&", "0000%25%3C&lt;"),
    ],
)
def test_an_edge_that_makes_an_escape_with_its_neighbour_hides_nothing(secret: str, text: str) -> None:
    """Found by hypothesis."""
    redacted = Redactor({secret}).redact(f"before {text} behind")
    assert MASK in redacted and html.unescape(unquote(redacted)).count(secret) == 0


def test_a_secret_that_holds_another_is_found_as_a_whole() -> None:
    assert (
        Redactor({"secret", "my-secret-key"}).redact("it is my-secret-key, secret") == f"it is {MASK}, {MASK}"
    )


@pytest.mark.parametrize(
    "text", ["", "nothing", "100 % of \\u00zz and &nothing; \\", "%", "&#99999999999;", "&#1114112;", "\\"]
)
def test_a_text_without_secrets_stays_as_it_is(text: str) -> None:
    assert Redactor({PLAIN}).redact(text) == text
    assert Redactor().redact(text + PLAIN) == text + PLAIN


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_cut_never_leaves_half_of_one(spelling: str) -> None:
    protect(frozenset({PLAIN}))
    spelt = SPELLINGS[spelling](PLAIN)
    # The first characters of a login's base64 are the user's name.
    pieces = {spelt[place : place + 5] for place in range(8 * ("login" in spelling), len(spelt) - 5)}
    for before in range(150, 201):
        told = beginning("." * before + spelt + " is unknown. " + "." * 5000, 200)
        assert len(told) <= 200
        assert told.startswith("." * before)
        assert not {told[place : place + 5] for place in range(len(told))} & pieces
        assert MASK[: max(0, 188 - before)] in told


def test_what_is_masked_does_not_bring_the_half_of_one_into_sight() -> None:
    """Of a long text only the beginning is read: what is behind that must not move into what is shown."""
    protect(frozenset({PLAIN}))
    told = beginning((PLAIN + " ") * 5000, 200)
    assert set(told.split()) <= {MASK, *(MASK[:length] for length in range(1, len(MASK)))}
    assert MASK in told


def test_a_clients_own_secret_is_known_without_the_process_s() -> None:
    protect(frozenset({"of-the-process"}))
    assert beginning("own-token of-the-process", 200, Redactor({"own-token"})) == f"{MASK} {MASK}"


def test_the_password_of_basic_authentication_is_one_by_itself() -> None:
    login = b64encode(b"acme:open-sesame").decode()
    bot = replace(BOT, headers={"Authorization": Secret(f"Basic {login}"), "X": Secret("Basic instinct!")})
    known = secrets_of(replace(CONFIG, workspaces={WORKSPACE.id: replace(WORKSPACE, bot=bot)}))
    assert {f"Basic {login}", login, "acme:open-sesame", "open-sesame", "instinct!"} <= known


@pytest.mark.parametrize(
    ("query", "own"),
    [
        ("token=abc-def", {"token=abc-def", "abc-def"}),
        ("lang=english", {"lang=english"}),
        ("a=1&x=0123456789abcdef", {"a=1&x=0123456789abcdef", "0123456789abcdef"}),
    ],
)
def test_the_keys_of_a_bots_url_are_secrets(query: str, own: set[str]) -> None:
    bot = replace(BOT, urls=(f"wss://bot.example.com/?{query}",))
    known = secrets_of(replace(CONFIG, workspaces={WORKSPACE.id: replace(WORKSPACE, bot=bot)}))
    assert known - secrets_of(CONFIG) == own


@pytest.mark.parametrize(
    ("url", "shown", "secrets"),
    [
        (
            "postgresql+psycopg://eslbot@db/calls?password=s%23cret-1&passfile=/etc/x",
            f"postgresql+psycopg://eslbot@db/calls?password={MASK}&passfile=/etc/x",
            {"s%23cret-1", "s#cret-1"},
        ),
        (
            "postgresql+psycopg://eslbot:first-one@db/calls?sslmode=require&sslpassword=second&Pass%77ord=third-1",
            f"postgresql+psycopg://eslbot:{MASK}@db/calls?sslmode=require&sslpassword={MASK}&Pass%77ord={MASK}",
            {"first-one", "second", "third-1"},
        ),
        (
            "postgresql+psycopg://eslbot:wh@t-now@db/calls?password=a@b.c.d",
            f"postgresql+psycopg://eslbot:{MASK}@db/calls?password={MASK}",
            {"wh@t-now", "a@b.c.d"},
        ),
        (
            "postgresql+psycopg://eslbot:what?now/x@db/calls",
            f"postgresql+psycopg://eslbot:{MASK}@db/calls",
            {"what?now/x"},
        ),
        ("postgresql+psycopg://eslbot@db:5432/calls", "postgresql+psycopg://eslbot@db:5432/calls", set()),
        ("postgresql+psycopg:///calls?host=/run/x@y", "postgresql+psycopg:///calls?host=/run/x@y", set()),
        ("sqlite:////var/lib/a:b@c/calls.db", "sqlite:////var/lib/a:b@c/calls.db", set()),
    ],
)
def test_every_password_of_a_databases_url_is_masked(url: str, shown: str, secrets: set[str]) -> None:
    ledger = Ledger(Secret(url), "/var/lib/eslbot/journal", 1.0)
    assert ledger.shown == shown
    assert secrets_of(replace(CONFIG, ledger=ledger, workspaces={})) == {
        "esl-password",
        "page-token-1",
        *secrets,
    }


def test_what_ends_a_process_is_told_without_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    protect(frozenset({PLAIN}))
    try:
        raise ValueError(f"with {PLAIN}")
    except ValueError as error:
        sys.excepthook(type(error), error, error.__traceback__)
    told = capsys.readouterr().err
    assert "Traceback" in told
    assert f"ValueError: with {MASK}" in told
    assert PLAIN not in told


def test_a_line_costs_the_same_for_hundreds_of_tenants() -> None:
    """Counted in looks, not in seconds: what is looked up is what the line has, not what is known."""

    class Counted(str):
        looks = 0

        def __contains__(self, _: object) -> bool:
            Counted.looks += 1
            return False

    def looks(tenants: int) -> int:
        Counted.looks = 0
        redactor = Redactor({f"{number:04}abcdefghijklmnopqrst" for number in range(tenants)})
        assert redactor.redact(Counted('{"event": "call_ended", "seconds": 7}')).startswith("{")
        return Counted.looks

    assert looks(500) == looks(5)


@pytest.mark.timed
@pytest.mark.parametrize("hostile", ["%25", "\\u005c", "&amp;", "\\\\", "%", "a" * 64], ids=repr)
def test_an_answer_made_to_cost_does_not_hold_up_the_calls(hostile: str) -> None:
    protect(frozenset(f"{number:04}abcdefghijklmnopqrst" for number in range(500)))
    text = hostile * (64 * 1024 // len(hostile))
    began = time.process_time()
    beginning(text, 200)
    assert time.process_time() - began < 0.02
