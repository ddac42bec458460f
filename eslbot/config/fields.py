"""Marshmallow fields of the kinds a telephony configuration is made of.

Every error says what was given and what was expected; none of them quotes a secret. Dumped, each is as it
stands in the file, but for secrets: those are masked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from ipaddress import ip_address, ip_network
from typing import Any
from urllib.parse import SplitResult, urlsplit

from marshmallow import ValidationError, fields

from eslbot.config.model import IP, Address, Network, Secret
from eslbot.config.urls import MASK, database_shown, shown

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"(\d{1,9}(?:\.\d{1,3})?) ?([kMGT]?B)")
_BYTES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}")
_LABELS = re.compile(r"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")  # RFC 9110, 5.6.2: token

_revealed: ContextVar[bool] = ContextVar("revealed", default=False)


@contextmanager
def revealing_secrets() -> Iterator[None]:
    """What is dumped within this block has its secrets in the clear."""
    token = _revealed.set(True)
    try:
        yield
    finally:
        _revealed.reset(token)


class _Text(fields.Field[Any]):
    """A TOML string, read by :meth:`read` and written by :meth:`write`."""

    expected = "a text"

    def read(self, text: str) -> Any:
        return text

    def write(self, value: Any) -> str:
        return str(value)

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        return None if value is None else self.write(value)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if not isinstance(value, str):
            raise ValidationError(f"expected {self.expected} in quotes, got {value!r}")
        return self.read(value)


class Duration(_Text):
    """``"500ms"``, ``"3s"``, ``"30m"``, ``"1h"``, ``"90d"``; seconds, from ``at_least`` to ``at_most``.

    With ``never`` a 0, as a number or a text, is one, too.
    """

    expected = 'a duration like "500ms", "3s", "30m" or "1h"'

    def __init__(
        self, *, at_least: float = 0.001, at_most: float = 86400.0, never: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.at_least, self.at_most, self.never = at_least, at_most, never

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if self.never and type(value) is int and value == 0:
            return 0.0
        return super()._deserialize(value, attr, data, **kwargs)

    def read(self, text: str) -> float:
        """Seconds."""
        match = _DURATION.fullmatch(text)
        if not match:
            raise ValidationError(f"expected {self.expected}, got {text!r}")
        number, unit = float(match[1]), match[2]
        # Divided: 938 * 0.001 is not 0.938.
        seconds = number / 1000 if unit == "ms" else number * _SECONDS[unit]
        if self.never and seconds == 0:
            return seconds
        if not self.at_least <= seconds <= self.at_most:
            never = "0, or " if self.never else ""
            raise ValidationError(
                f"expected {never}{self.at_least:g} to {self.at_most:g} seconds, got {text!r}"
            )
        return seconds

    def write(self, value: float) -> str:
        """In seconds or, below one, in milliseconds."""
        return f"{value:.10g}s" if value == 0 or value >= 1 else f"{round(value * 1000)}ms"


class Size(fields.Field[int]):
    """``"500MB"``, ``"50GB"``, ``"1TB"``, or a number of bytes."""

    expected = 'a size like "500MB" or "50GB", or a number of bytes'

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        if type(value) is int and 0 <= value < 2**60:
            return value
        match = _SIZE.fullmatch(value) if isinstance(value, str) else None
        if not match:
            raise ValidationError(f"expected {self.expected}, got {value!r}")
        return round(float(match[1]) * _BYTES[match[2]])

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> int:
        return value or 0  # None: no bound


class Share(fields.Field[float]):
    """``true``, ``false``, or a number from 0 to 1."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> float:
        if isinstance(value, bool | int | float) and 0 <= value <= 1:
            return float(value)
        raise ValidationError(f"expected true, false or a share of calls from 0.0 to 1.0, got {value!r}")

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> float | bool:
        return value if 0 < value < 1 else bool(value)


class AddressField(_Text):
    """``"127.0.0.1:8084"`` or ``"[::1]:8084"``."""

    expected = 'an IP address and a port like "127.0.0.1:8084"'

    def read(self, text: str) -> Address:
        """The address."""
        host, colon, port = text.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            colon = ""
        try:
            ip = ip_address(host)
        except ValueError:
            colon = ""
            ip = None
        if not colon or ip is None or not re.fullmatch(r"\d+", port, re.ASCII):
            raise ValidationError(f"expected {self.expected}, got {text!r}")
        if len(port) > 5 or not 1 <= int(port) <= 65535:
            raise ValidationError(f"expected a port from 1 to 65535, got {text!r}")
        return Address(ip, int(port))


class IpField(_Text):
    """An IP address."""

    expected = 'an IP address like "10.0.0.5"'

    def read(self, text: str) -> IP:
        """The address."""
        try:
            return ip_address(text)
        except ValueError:
            raise ValidationError(f"expected {self.expected}, got {text!r}") from None


class NetworkField(_Text):
    """One address or a CIDR block without host bits."""

    expected = 'an address or a CIDR block like "203.0.113.10" or "203.0.113.64/28"'

    def read(self, text: str) -> Network:
        """The network; one address is a network of its own."""
        try:
            return ip_network(text)
        except ValueError:
            pass
        try:
            meant = ip_network(text, strict=False)
        except ValueError:
            raise ValidationError(f"expected {self.expected}, got {text!r}") from None
        raise ValidationError(f"{text!r} has bits set behind its prefix; did you mean {str(meant)!r}?")

    def write(self, value: Network) -> str:
        """One address without its prefix."""
        return str(value.network_address if value.prefixlen == value.max_prefixlen else value)


class PortRange(_Text):
    """``"10000-60000"``, both ends included."""

    expected = 'a range of ports like "10000-60000"'

    def read(self, text: str) -> tuple[int, int]:
        """First and last port."""
        first, _, last = text.partition("-")
        if not (re.fullmatch(r"\d{1,5}", first, re.ASCII) and re.fullmatch(r"\d{1,5}", last, re.ASCII)):
            raise ValidationError(f"expected {self.expected}, got {text!r}")
        low, high = int(first), int(last)
        if not 1024 <= low < high <= 65535:
            raise ValidationError(f"expected 1024 <= first < last <= 65535, got {text!r}")
        return low, high

    def write(self, value: tuple[int, int]) -> str:
        """First and last port."""
        return "{}-{}".format(*value)


class SecretField(_Text):
    """A text that is never shown; printable ASCII, because it travels in a header or a command line."""

    expected = 'a text, best taken from the environment: "${NAME}" or "${file:/run/secrets/name}"'

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if not isinstance(value, str):  # the value stays unsaid: it may be the secret, unquoted
            raise ValidationError(f"expected {self.expected}")
        return self.read(value)

    def read(self, text: str) -> Secret:
        """The secret."""
        if not text:
            raise ValidationError("is empty")
        if not (text.isascii() and text.isprintable()) or text != text.strip():
            raise ValidationError("expected printable ASCII without white space around it")
        return Secret(text)

    def write(self, value: Secret) -> str:
        """The mask, but for :func:`revealing_secrets`."""
        return value.reveal() if _revealed.get() else MASK


class SealingKey(SecretField):
    """A key of 32 bytes, as hex digits."""

    expected = (
        'the 64 hex digits that `openssl rand -hex 32` prints, best in a file: "${file:/run/secrets/acme}"'
    )

    def read(self, text: str) -> Secret:
        """The key."""
        secret = super().read(text)
        if not re.fullmatch(r"[0-9A-Fa-f]{64}", text):
            raise ValidationError(f"expected {self.expected}")
        return secret


class LedgerUrl(SecretField):
    """``sqlite:////absolute/path`` or ``postgresql+psycopg://user:password@host/database``.

    It may hold a password, so it is a secret as a whole, and errors do not quote it.
    """

    expected = '"sqlite:////var/lib/eslbot/calls.db" or "postgresql+psycopg://user:password@host/database"'

    def read(self, text: str) -> Secret:
        """The URL."""
        secret = super().read(text)
        try:
            parts = urlsplit(text)
            port_is_fine = parts.port != 0
        except ValueError:
            raise ValidationError(f"expected {self.expected}") from None
        if parts.scheme == "sqlite":
            # A path that is not absolute would be another one for each command.
            if parts.netloc or not parts.path.startswith("//") or parts.path.endswith("/"):
                raise ValidationError(
                    "expected an absolute path behind sqlite:///, as in sqlite:////var/lib/…"
                )
        elif parts.scheme in ("postgres", "postgresql"):
            raise ValidationError(
                f"expected postgresql+psycopg:// (the driver's name), got {parts.scheme}://"
            )
        elif parts.scheme != "postgresql+psycopg" or not parts.path.strip("/") or not port_is_fine:
            raise ValidationError(f"expected {self.expected}")
        return secret

    def write(self, value: Secret) -> str:
        """The URL, its passwords masked."""
        return database_shown(value.reveal())


class ProxyUrl(SecretField):
    """``http://``, ``https://``, ``socks4://`` or ``socks5://``, with a port, perhaps with user and password.

    So it is a secret as a whole, and errors do not quote it.
    """

    schemes: tuple[str, ...] = ("http", "https", "socks4", "socks5")
    expected = (
        'a URL with a port, like "http://proxy.example.com:3128" or "socks5://user:password@10.0.0.9:1080"'
    )

    def read(self, text: str) -> Secret:
        """The URL."""
        secret = super().read(text)
        try:
            parts = urlsplit(text)
            has_port = bool(parts.port)
        except ValueError:
            raise ValidationError(f"expected {self.expected}") from None
        if (
            parts.scheme not in self.schemes
            or not has_port
            or not _dialled(parts.hostname or "")
            or parts.path.strip("/")
            or parts.query
            or parts.fragment
        ):
            raise ValidationError(f"expected {self.expected}")
        return secret


class HttpProxyUrl(ProxyUrl):
    """``http://`` alone: what Ameyo is reached through."""

    schemes = ("http",)
    expected = 'an http:// URL with a port, like "http://user:${PROXY_PASSWORD}@10.0.0.9:3128"'


class HostName(_Text):
    """A host name, with an optional port, as it stands in an HTTP Host header."""

    expected = 'a host name like "acme.ameyo.app"'

    def read(self, text: str) -> str:
        """The name as given."""
        name, colon, port = text.partition(":")
        if not _HOST.fullmatch(name) or (colon and not re.fullmatch(r"\d{1,5}", port, re.ASCII)):
            raise ValidationError(f"expected {self.expected}, got {text!r}")
        return text


class HeaderName(_Text):
    """The name of an HTTP header."""

    expected = "the name of an HTTP header"

    def read(self, text: str) -> str:
        """The name as given."""
        if not _HEADER_NAME.fullmatch(text):
            raise ValidationError(f"expected {self.expected}, got {text!r}")
        return text


class _AnyUrl(_Text):
    """A URL with a host, of one of ``schemes``, the second being the one that needs ``insecure = true``."""

    schemes: tuple[str, str]

    def read(self, text: str) -> str:
        """The URL as given."""
        try:
            parts = urlsplit(text)
            port_is_fine = parts.port != 0
        except ValueError:
            raise ValidationError(f"expected {self.expected}, got {text!r}") from None
        if parts.scheme not in self.schemes or not parts.hostname or not port_is_fine:
            raise ValidationError(f"expected {self.expected}, got {text!r}")
        if parts.username is not None or parts.password is not None:
            raise ValidationError("credentials do not belong in a URL; use headers or token")
        if not (text.isascii() and text.isprintable()) or any(c in text for c in " \"'\\|;{}$#"):
            raise ValidationError(f"{text!r} has characters that a URL must escape")
        self.check(text, parts)
        return text

    def check(self, text: str, parts: SplitResult) -> None:
        """Further conditions of this kind of URL. Raises ValidationError."""


class Url(_AnyUrl):
    """Ameyo's, to which a path is appended."""

    schemes = ("https", "http")
    expected = "a URL like https://host.example.com/"

    def check(self, text: str, parts: SplitResult) -> None:
        """Without a query."""
        if parts.query:
            raise ValidationError(f"a path is put behind this URL, so it cannot have a query: {text!r}")


class BotUrl(_AnyUrl):
    """A bot's, as the dialler reads it (picows' ``parse_url``; a test compares the two).

    That leaves out what stands behind a ``;`` in a path, and takes a port 0 for none: neither is let in.
    """

    schemes = ("wss", "ws")
    expected = "a URL like wss://host.example.com/"

    def check(self, text: str, parts: SplitResult) -> None:
        """A host that can be asked for, in at most 2,000 characters."""
        if not _dialled(parts.hostname or ""):
            raise ValidationError(f"expected a host name or an address in {text!r}; IPv6 ones in [ ]")
        if len(text) > 2000:
            raise ValidationError(f"expected up to 2,000 characters, got {len(text)}")

    def write(self, value: str) -> str:
        """Without its query, but for :func:`revealing_secrets`: that is often a key."""
        return value if _revealed.get() else shown(value)


class BotUrls(fields.Field[tuple[str, ...]]):
    """One URL, or a list of them, tried in order."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> tuple[str, ...]:
        one = BotUrl()
        if not isinstance(value, list):
            return (str(one.deserialize(value)),)
        if not 1 <= len(value) <= 8:
            raise ValidationError("expected one URL or a list of 1 to 8")
        urls: list[Any] = fields.List(one).deserialize(value)
        return tuple(urls)

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> str | list[str]:
        urls = [BotUrl().write(url) for url in value]
        return urls if len(urls) > 1 else urls[0]


def _dialled(host: str) -> bool:
    """Whether ``host`` can be resolved: an address, or a name whose labels have up to 63 characters."""
    try:
        ip_address(host)
    except ValueError:
        return len(host) <= 253 and _LABELS.fullmatch(host) is not None
    return True
