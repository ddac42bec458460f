"""Each message and field of the protocol's document is in the schema, the relay and the SDK; no other is.

Figures and formats are in ``test_protocol_eslbot.py``.
"""

from __future__ import annotations

import ast
import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eslbot.audio import decoder
from eslbot.relay import bot_part, budgets, dialler, playout
from eslbot.relay.protocols import eslbot, texts
from eslbot_bot import Sound, budget, messages, outgoing, server
from tests.unit.test_protocol_eslbot import (
    DOCUMENT,
    FROM_BOT,
    SCHEMA,
    blocks,
    examples,
    protocol,
    section,
    told,
)

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "integrations" / "examples"
RELAY = ROOT / "eslbot" / "relay"
#: Sections of the document, and where their messages are in the schema.
TO, FROM = (2, "toBot"), (3, "fromBot")


def schemas(name: str) -> dict[str, dict[str, Any]]:
    """The messages of one direction, by their types."""
    options = [option["$ref"].rpartition("/")[2] for option in SCHEMA["$defs"][name]["oneOf"]]
    found = [SCHEMA["$defs"][option] for option in options]
    return {schema["properties"]["type"]["const"]: schema for schema in found}


def fields(schema: dict[str, Any]) -> set[str]:
    """The names of a message's fields, those within others too."""
    names: set[str] = set()
    for name, value in schema["properties"].items():
        names |= {name} | (fields(value) if "properties" in value else set())
    return names


def spelt(message: dict[str, Any]) -> set[str]:
    """The same of a message itself; what is in `properties` has names of a bot's own."""
    names: set[str] = set()
    for name, value in message.items():
        names |= {name} | (spelt(value) if isinstance(value, dict) and name != "properties" else set())
    return names


def described(number: int) -> Iterator[tuple[str, str]]:
    """The messages of a section, and what is said of each."""
    _, *parts = re.split(r"^### `(\w+)`\n", section(number), flags=re.M)
    yield from zip(parts[::2], parts[1::2], strict=True)


MESSAGES = [
    pytest.param(number, direction, name, id=f"{name} {direction}")
    for number, direction in (TO, FROM)
    for name in schemas(direction)
]


@pytest.mark.parametrize(("number", "direction", "name"), MESSAGES)
def test_a_messages_fields_are_those_of_the_schema(number: int, direction: str, name: str) -> None:
    text = dict(described(number))[name]
    documented: set[str] = set()
    for block in blocks(text, "json"):
        documented |= spelt(json.loads(block))
    for table in re.findall(r"^\| field \|.*?(?:\n\n|\Z)", text, re.S | re.M):
        for cell in re.findall(r"^\| (`.*?) \|", table, re.M):
            documented |= set(re.findall(r"`(\w+)`", cell))
    assert documented == fields(schemas(direction)[name])


def test_no_message_is_described_that_is_not_in_the_schema() -> None:
    for number, direction in (TO, FROM):
        assert [name for name, _ in described(number)] and {name for name, _ in described(number)} == set(
            schemas(direction)
        )


# -- the relay --------------------------------------------------------------------------------------------

SAID = [
    protocol().start(resumed=True),
    protocol().key("5", 120),
    protocol().mark("name", cleared=True),
    protocol().cleared(),
    protocol().hold(True),
    protocol().error("unusable_audio", "why"),
    protocol().stop("ended"),
]


def test_what_the_relay_says_has_the_schemas_fields_and_all_of_them() -> None:
    said = {message["type"]: spelt(message) for message in map(told, SAID)}
    wanted = {name: fields(schema) for name, schema in schemas("toBot").items()}
    # The document says so: it may come, and this release does not send it.
    assert wanted.pop("resumed") == {"type"}
    assert said == wanted


class Noting(dict[str, Any]):
    """A message that notes what is looked up in it."""

    def __init__(self, message: dict[str, Any], seen: set[str]) -> None:
        super().__init__({name: Noting(v, seen) if isinstance(v, dict) else v for name, v in message.items()})
        self._seen = seen

    def get(self, key: str, default: Any = None) -> Any:
        self._seen.add(key)
        return super().get(key, default)


@pytest.mark.parametrize("name", sorted(schemas("fromBot")))
def test_what_the_relay_reads_are_the_schemas_fields(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[str] = set()
    monkeypatch.setattr(texts, "read", lambda text, key: (Noting(json.loads(text), seen), None))
    for message in examples(3):
        if message["type"] == name:
            protocol().read(json.dumps(message))
    assert seen == fields(schemas("fromBot")[name])


def texts_given_to(*names: str) -> set[str]:
    """The fixed texts in the first argument of calls of these (``object.method``), anywhere in the relay."""
    found: set[str] = set()
    for path in RELAY.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            if ast.unparse(node.func) in names:
                arguments = ast.walk(node.args[0])
                found |= {
                    a.value for a in arguments if isinstance(a, ast.Constant) and isinstance(a.value, str)
                }
    return found


def rows(name: str) -> set[str]:
    """The first column of the table in what is said of a message to the bot."""
    return set(re.findall(r"^\| `(\w+)` \|", dict(described(2))[name], re.M))


def test_the_codes_of_errors_are_the_relays() -> None:
    documented = rows("error")
    assert texts_given_to("self.refuse", "protocol.error") == documented
    assert set(schemas("toBot")["error"]["properties"]["code"]["examples"]) == documented


def test_the_reasons_of_stop_are_the_relays() -> None:
    documented = rows("stop") - {"reason"}
    assert texts_given_to("self._leave", "self.part") == documented
    assert set(schemas("toBot")["stop"]["properties"]["reason"]["enum"]) == documented


# -- the SDK ----------------------------------------------------------------------------------------------


def values(message: dict[str, Any]) -> set[object]:
    """A message's own values, but for what is the same in all of its kind."""
    found: set[object] = set()
    for name, value in message.items():
        if name not in ("type", "version", "encoding", "channels"):
            found |= values(value) if isinstance(value, dict) else {value}
    return found


@pytest.mark.parametrize("message", [*examples(2), *examples(5)], ids=lambda message: message["type"])
def test_the_sdk_tells_everything_that_is_in_a_message(message: dict[str, Any]) -> None:
    if message["type"] == "resumed":
        assert messages.event(message) is None, "it answers by itself"
        return
    read = messages.start if message["type"] == "start" else messages.event
    event = read(message)
    assert event is not None
    assert values(message) <= {getattr(event, field.name) for field in dataclasses.fields(event)}


def test_the_sdk_tells_of_every_message() -> None:
    known = {message["type"] for message in examples(2)}
    assert known == set(schemas("toBot"))


SDK_SAYS = [
    messages.speech(b"\1\2", 16000),
    messages.clear(),
    messages.mark("name"),
    messages.end({"a": 1, "b": "x", "c": True, "d": None, "e": 0.5}, "reason"),
    messages.caller_speech(True),
    messages.resumed(),
]


def test_what_the_sdk_says_is_valid_and_all_there_is() -> None:
    said = {}
    for text in SDK_SAYS:
        message = json.loads(text)
        FROM_BOT.validate(message)
        said[message["type"]] = spelt(message)
    assert said == {name: fields(schema) for name, schema in schemas("fromBot").items()}


def test_the_sdks_figures_are_within_the_relays() -> None:
    assert tuple(decoder.RATES) == messages.RATES
    assert messages.MAX_PROPERTIES == eslbot.MAX_PROPERTIES
    assert messages.MAX_REASON == eslbot.MAX_REASON
    assert messages.MAX_MARK_NAME == eslbot.MAX_MARK_NAME
    assert outgoing.MAX_MARKS < playout.MAX_MARKS
    assert budget.MESSAGES < budgets.MESSAGES and budget.MESSAGES_AT_ONCE < budgets.MESSAGES_AT_ONCE
    assert budget.BYTES < budgets.BYTES and budget.BYTES_AT_ONCE < budgets.BYTES_AT_ONCE
    assert server.END_WITHIN > bot_part.LAST_WORDS
    longest = Sound(bytes(2 * 24000 * playout.MAX_QUEUED_SECONDS), 24000)
    assert len(longest.l16) < outgoing.MAX_WAITING
    assert dialler.MAX_UNREAD > 0, "which is why the SDK drops the caller's audio and does not let it wait"


# -- what is printed --------------------------------------------------------------------------------------


def test_the_printed_bots_are_the_examples_that_run() -> None:
    printed = blocks(DOCUMENT, "python")
    assert printed == [
        (EXAMPLES / "python-sdk" / "sdk_bot.py").read_text(),
        (EXAMPLES / "python-plain" / "plain_bot.py").read_text(),
    ]


@pytest.mark.parametrize(
    "page",
    [
        ROOT / "docs" / "bot-protocol.md",
        *(ROOT / "integrations").glob("*/README.md"),
        *EXAMPLES.glob("*/README.md"),
    ],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_its_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_sdks_own_page_names_what_there_is() -> None:
    import eslbot_bot

    page = (ROOT / "integrations" / "eslbot-bot" / "README.md").read_text()
    named = {
        name for line in re.findall(r"^from eslbot_bot import (.*)", page, re.M) for name in line.split(", ")
    }
    named |= set(re.findall(r"^\| `([A-Z]\w+)\(", page, re.M))
    assert named and named <= set(eslbot_bot.__all__)
    for attribute in re.findall(r"`call\.(\w+)", page):
        assert (
            hasattr(eslbot_bot.Call, attribute)
            or f"self.{attribute}" in Path(eslbot_bot.call.__file__).read_text()
        ), attribute
