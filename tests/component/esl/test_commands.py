"""What we say: nothing that a caller or a bot chose becomes a command."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from eslbot.esl.commands import check_line, execute_message, quote
from eslbot.esl.errors import UnsafeArgument
from tests.support.peer import fields
from tests.support.wire import clean, separate

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
nasty = st.text(st.sampled_from("\\'\" \n\r\tnrts$;{}|^,a"), max_size=30)


@given(texts | nasty)
@example("d444-$\\{};'x")
@example("\\")
@example("\\n")
@example("'")
@example("it's")
@example(" \\s ")
def test_freeswitch_unquotes_what_was_quoted(text: str) -> None:
    assert clean(quote(text)) == text
    assert check_line(quote(text)) == quote(text)
    assert " " not in quote(text)


@given(texts | nasty, texts | nasty)
def test_one_value_is_one_argument(first: str, second: str) -> None:
    arguments = separate(f"uuid {quote(first or 'x')} {quote(second or 'x')}", 3)
    assert arguments == ["uuid", first or "x", second or "x"]
    # uuid_audio_stream separates into more than it needs
    assert separate(f"uuid send_text {quote(first or 'x')}", 7) == ["uuid", "send_text", first or "x"]


def test_the_reference_is_freeswitchs() -> None:
    """The quoting rules that were measured, so that the test's own reference is tested, too."""
    assert clean("'a b'") == "a b"
    assert clean("it's") == "it's"
    assert clean("'it''s'") == "its"
    assert clean(r"a\sb\nc\'d\"e\\f\xg") == "a b\nc'd\"e\\f\\xg"
    assert clean("  a  ") == "a"
    assert separate("a  'b c' d\\se", 5) == ["a", "b c", "d e"]
    assert separate("a b c d", 2) == ["a", "b c d"]


def test_nul_is_refused() -> None:
    with pytest.raises(UnsafeArgument):
        quote("a\0b")


def test_an_execute_message() -> None:
    assert execute_message("answer").startswith("sendmsg\n")
    message = fields(execute_message("answer"))
    assert message.items() >= {"call-command": "execute", "execute-app-name": "answer"}.items()
    assert "execute-app-arg" not in message
    message = fields(execute_message("playback", "/tmp/a.r8", "42"))
    assert message["execute-app-arg"] == "/tmp/a.r8"
    assert message["Event-UUID"] == "42"


@pytest.mark.parametrize("evil", ["a\nexecute-app-name: hangup", "a\r", "a\0", "\n\n"])
def test_a_line_end_in_any_part_is_refused(evil: str) -> None:
    for arguments in [(evil,), ("set", evil), ("set", "a", evil)]:
        with pytest.raises(UnsafeArgument):
            execute_message(*arguments)
        with pytest.raises(ValueError, match="line end or NUL"):
            execute_message(*arguments)
