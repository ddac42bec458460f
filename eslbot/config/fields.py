"""Marshmallow fields of the kinds a telephony configuration is made of.

Every error says what was given and what was expected; none of them quotes a secret.
"""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

from marshmallow import ValidationError, fields

from eslbot.config.model import IP, Address, Network, Secret

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")  # RFC 9110, 5.6.2: token


class _Text(fields.Field[Any]):
    """A TOML string, read by :meth:`read`."""

    expected = "a text"

    def read(self, text: str) -> Any:
        return text

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if not isinstance(value, str):
            raise ValidationError(f"expected {self.expected} in quotes, got {value!r}")
        return self.read(value)


class Duration(_Text):
    """``"500ms"``, ``"3s"``, ``"30m"``, ``"1h"``, ``"90d"``; seconds, from ``at_least`` to ``at_most``."""

    expected = 'a duration like "500ms", "3s", "30m" or "1h"'

    def __init__(self, *, at_least: float = 0.001, at_most: float = 86400.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.at_least, self.at_most = at_least, at_most

    def read(self, text: str) -> float:
        """Seconds."""
        match = _DURATION.fullmatch(text)
        if not match:
            raise ValidationError(f"expected {self.expected}, got {text!r}")
        seconds = float(match[1]) * _SECONDS[match[2]]
        if not self.at_least <= seconds <= self.at_most:
            raise ValidationError(f"expected {self.at_least:g} to {self.at_most:g} seconds, got {text!r}")
        return seconds


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


class Url(_Text):
    """A URL with a host, of one of ``schemes``, the second being the one that needs ``insecure = true``.

    ``for_audio_stream`` adds what mod_audio_stream cannot dial (its ``validate_ws_uri``): hosts with ``_``,
    IPv6 literals, URLs over 2,000 characters (its buffer holds 4,096 bytes), credentials in the URL.
    """

    def __init__(self, *, schemes: tuple[str, str], for_audio_stream: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.schemes, self.for_audio_stream = schemes, for_audio_stream
        self.expected = f"a URL like {schemes[0]}://host.example.com/"

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
        if self.for_audio_stream:
            if not _HOST.fullmatch(parts.hostname):
                raise ValidationError(
                    f"mod_audio_stream cannot dial the host of {text!r}: letters, digits, '-' and '.' "
                    "only (no '_', no IPv6 literal)"
                )
            if len(text) > 2000:
                raise ValidationError(f"mod_audio_stream takes URLs up to 2,000 characters, got {len(text)}")
        elif parts.query:
            raise ValidationError(f"a path is put behind this URL, so it cannot have a query: {text!r}")
        return text
