"""What a valid configuration is made of: small frozen objects, units in their docstrings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from eslbot.config.urls import MASK, database_shown
from eslbot.recovery import paths

Network = IPv4Network | IPv6Network
IP = IPv4Address | IPv6Address


class ConfigError(Exception):
    """The configuration cannot be used.

    ``problems`` is a list of ``"key: what was expected"`` lines, all that were found in one run.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)


class Secret:
    """A text that shows itself only on :meth:`reveal`, so that no log, traceback or dump can hold it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself, for the wire."""
        return self._text

    def __repr__(self) -> str:
        return MASK

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)


@dataclass(frozen=True, slots=True)
class Address:
    """An IP address and a TCP or UDP port."""

    ip: IP
    port: int

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if self.ip.version == 6 else f"{self.ip}:{self.port}"

    @property
    def pair(self) -> tuple[str, int]:
        """As the socket module wants it."""
        return str(self.ip), self.port

    @property
    def from_own_host(self) -> Address:
        """Where a listener on this address is reached from its own host."""
        return loopback(self.port) if self.ip.is_unspecified else self


def loopback(port: int) -> Address:
    """``127.0.0.1:port``."""
    return Address(ip_address("127.0.0.1"), port)


#: A ``switch_user`` that is none: whoever has a process on this host may speak to the listener.
ANY_USER = "any"


@dataclass(frozen=True, slots=True)
class Server:
    """The event-socket listener and its workers; ``max_calls`` is per worker.

    ``health`` is where workers answer ``/healthz`` and ``/readyz``, on loopback, and nothing else.
    ``key_file`` holds the key that signs whose call a call is (:mod:`eslbot.caller.identity`).
    ``switch_user``: name or number of the only user of this host, but root, who may speak to the listener;
    None for root, the service's own user and one called ``freeswitch``; :data:`ANY_USER` for everybody.
    """

    listen: Address
    switches: tuple[Network, ...]
    workers: int
    max_calls: int
    key_file: str = "/var/lib/eslbot/identity.key"
    switch_user: str | None = None
    health: Address = field(default_factory=lambda: loopback(8083))

    def knows_switch(self, ip: str) -> bool:
        """Whether a FreeSWITCH host at ``ip`` may connect."""
        return _within(ip, self.switches)

    @property
    def open_to_this_host(self) -> bool:
        """Whether any process of this host may speak to the listener."""
        return self.switch_user == ANY_USER and any(
            network.is_loopback or self.listen.ip.is_unspecified or self.listen.ip in network
            for network in self.switches
        )


@dataclass(frozen=True, slots=True)
class FreeSwitch:
    """What ``eslbot conf`` renders. ``rtp_ports`` is the inclusive range of UDP ports.

    ``media_timeout``: seconds without a single RTP packet of the PBX's, after which FreeSWITCH ends the call.
    ``capture``: the UDP address that gets a copy of each SIP message. ``db``: the directory of its databases;
    ``recovery_file`` tells of its restarts (:mod:`eslbot.recovery`).
    """

    sip_ip: IP | None
    sip_port: int
    external_ip: IP | None
    rtp_ports: tuple[int, int]
    event_socket: Address
    event_socket_password: Secret | None
    controllers: tuple[Address, ...]
    media_timeout: float = 300.0
    capture: Address = Address(ip_address("127.0.0.1"), 8087)
    db: str = paths.DATABASES
    recovery_file: str = paths.FILE


@dataclass(frozen=True, slots=True)
class Relay:
    """The media relay beside FreeSWITCH: where mod_audio_stream finds it, and where line files are.

    ``processes``: those that ``eslbot serve`` starts; with 0 a relay is started by itself.
    """

    listen: Address = Address(ip_address("127.0.0.1"), 8086)
    processes: int = 1
    directory: str = "/var/lib/eslbot/lines"


@dataclass(frozen=True, slots=True)
class Recordings:
    """Where recordings are, and for how long (``keep``, seconds).

    ``max_bytes``: of all of them, beyond which the oldest go; None for no bound. ``min_free``: bytes that
    stay free on the file system, or nothing is recorded.
    """

    directory: str = "/var/lib/eslbot/recordings"
    keep: float = 30 * 86400.0
    max_bytes: int | None = 50_000_000_000
    min_free: int = 1_000_000_000


#: An announcement that is no file's name.
BEEP = "beep"


@dataclass(frozen=True, slots=True)
class OwnRecordings:
    """What a workspace has of its own for its recordings.

    ``announcement``: what the caller hears first, ``beep`` or the path of a WAV file. ``keep``: seconds,
    instead of those of all. ``key``: 64 hex digits that seal them; ``old_keys`` open those of before.
    """

    announcement: str | None = None
    keep: float | None = None
    key: Secret | None = None
    old_keys: tuple[Secret, ...] = ()

    @property
    def sealing_key(self) -> bytes | None:
        """The key that new recordings are sealed with; None: they are not."""
        return None if self.key is None else bytes.fromhex(self.key.reveal())

    @property
    def keys(self) -> tuple[bytes, ...]:
        """All keys that may open a recording."""
        secrets = (*(() if self.key is None else (self.key,)), *self.old_keys)
        return tuple(bytes.fromhex(secret.reveal()) for secret in secrets)


@dataclass(frozen=True, slots=True)
class Edge:
    """The SIP proxy in front of several FreeSWITCH hosts: what ``eslbot conf --edge`` renders.

    ``sip_ip``: of the edge that is rendered; PBXs talk to ``sip_port``, the ``switches`` to ``inner_port``.
    ``addresses``: all edges, as FreeSWITCH sees them.
    """

    sip_ip: IP
    sip_port: int
    inner_port: int
    external_ip: IP | None
    switches: tuple[Address, ...]
    addresses: tuple[IP, ...]


@dataclass(frozen=True, slots=True)
class Egress:
    """The public addresses from which Ameyo sees this service: what its firewall has to let in."""

    addresses: tuple[IP, ...] = ()


@dataclass(frozen=True, slots=True)
class PageToken:
    """Who may see the call page: all workspaces, or those of the given names.

    ``numbers``: unmasked or not; ``recordings``: whether they may be heard.
    """

    name: str
    token: Secret
    numbers: bool = False
    workspaces: tuple[str, ...] = ()
    recordings: bool = False


@dataclass(frozen=True, slots=True)
class Web:
    """The page process's HTTP listener. Without ``tokens`` nobody sees the call page."""

    listen: Address
    tokens: tuple[PageToken, ...] = ()


@dataclass(frozen=True, slots=True)
class Ledger:
    """Where calls are recorded. ``url`` is SQLAlchemy's and may hold a password; ``retention`` in seconds.

    ``journal`` is the directory in which workers write down what happens until it is in the database.
    """

    url: Secret
    journal: str
    retention: float

    @property
    def shown(self) -> str:
        """The URL for people, its passwords masked."""
        return database_shown(self.url.reveal())


@dataclass(frozen=True, slots=True)
class Tracing:
    """Where spans of calls go, by OTLP over HTTP: ``share`` of all calls (0 to 1), by a hash of their id."""

    endpoint: str
    service_name: str = "eslbot"
    share: float = 1.0
    headers: Mapping[str, Secret] = field(default_factory=dict)
    insecure: bool = False


@dataclass(frozen=True, slots=True)
class Logs:
    """What log lines may tell: with ``mask_numbers`` no phone number in full."""

    mask_numbers: bool = False


#: What bots may speak, and at which rates (Hz) the caller's audio comes to them there.
SAMPLE_RATES: Mapping[str, tuple[int, ...]] = {
    "eslbot": (8000, 16000, 24000),
    "twilio": (8000,),
    "exotel": (8000, 16000, 24000),
    "plivo": (8000, 16000),
}


@dataclass(frozen=True, slots=True)
class Bot:
    """A workspace's voice bot. Time-outs in seconds, ``sample_rate`` in Hz, ``urls`` tried in order.

    ``first_audio_timeout`` of 0: a bot that may wait for the caller to speak. ``proxy`` may hold a password.
    """

    urls: tuple[str, ...]
    sample_rate: int
    connect_timeout: float
    first_audio_timeout: float
    headers: Mapping[str, Secret]
    insecure: bool
    reconnect: bool = False
    protocol: str = "eslbot"
    proxy: Secret | None = None


@dataclass(frozen=True, slots=True)
class Ameyo:
    """A workspace's Ameyo REST endpoint. Time-outs in seconds.

    ``bye_timeout``: how long a call that was handed off may stay without BYE before that is an alarm;
    ``renotify``: whether Ameyo is then notified again, each time. ``source_address``: the address of this
    host that POSTs leave from; ``proxy``: the HTTP proxy they go through, which may hold a password.
    """

    url: str
    tenant_host: str
    token: Secret
    ca_file: str | None
    bot_properties: tuple[str, ...]
    properties: Mapping[str, str]
    connect_timeout: float
    timeout: float
    insecure: bool
    bye_timeout: float = 60.0
    renotify: bool = False
    source_address: IP | None = None
    proxy: Secret | None = None


@dataclass(frozen=True, slots=True)
class Workspace:
    """One tenant. ``max_duration`` in seconds from the answer; ``max_calls`` over all workers here.

    ``max_cps``: INVITEs a second that its sources may send.

    ``hold_sound`` is what the customer hears while waiting for an agent: ``silence``, ``tone``, or the path
    of a sound file on FreeSWITCH's host. ``nat``: the PBX's audio comes from elsewhere than its SDP says, and
    ours goes there. ``record``: the share of calls that are recorded, 0 to 1.
    """

    id: str
    name: str
    sources: tuple[Network, ...]
    max_calls: int
    max_duration: float
    bot: Bot
    ameyo: Ameyo
    hold_sound: str = "silence"
    max_cps: int = 30
    nat: bool = False
    record: float = 0.0
    recording: OwnRecordings = OwnRecordings()

    def knows_source(self, ip: str) -> bool:
        """Whether the PBX address ``ip`` is one of this workspace's own."""
        return _within(ip, self.sources)


@dataclass(frozen=True, slots=True)
class Config:
    """The whole file. ``workspaces`` is keyed by the workspace's UUID in lower case."""

    server: Server
    freeswitch: FreeSwitch
    web: Web
    workspaces: Mapping[str, Workspace]
    #: None: calls are not recorded.
    ledger: Ledger | None = None
    logs: Logs = Logs()
    #: None: no spans are sent.
    tracing: Tracing | None = None
    #: None: PBXs talk to FreeSWITCH itself.
    edge: Edge | None = None
    relay: Relay = Relay()
    egress: Egress = Egress()
    recording: Recordings = Recordings()
    #: Tenants that the file does not have any more, but perhaps calls of
    #: (:mod:`eslbot.config.former_tenants`).
    former: Mapping[str, Workspace] = field(default_factory=dict, compare=False)
    #: Things that are not wrong, but that the operator should know; shown by ``check`` and ``serve``.
    warnings: tuple[str, ...] = field(default=(), compare=False)

    def of_admitted(self, workspace_id: str) -> Workspace | None:
        """The workspace of a call that was admitted: as it is now or, where it is gone, as it was last."""
        return self.workspaces.get(workspace_id) or self.former.get(workspace_id)

    @property
    def edges(self) -> tuple[IP, ...]:
        """The addresses of the edges: who may say where a call comes from."""
        return self.edge.addresses if self.edge else ()

    @property
    def sip_peers(self) -> tuple[Network, ...]:
        """Whose INVITEs FreeSWITCH takes, its ACL: the edges', or every PBX's where there are none."""
        return tuple(ip_network(ip) for ip in self.edges) or self.sources

    @property
    def sources(self) -> tuple[Network, ...]:
        """Every PBX address of every workspace, sorted, each once."""
        networks = {network for workspace in self.workspaces.values() for network in workspace.sources}
        return tuple(sorted(networks, key=lambda n: (n.version, n.network_address, n.prefixlen)))


def _within(ip: str, networks: Sequence[Network]) -> bool:
    address = address_in(ip)
    return address is not None and any(address in network for network in networks)


@lru_cache(maxsize=1024)
@lru_cache(maxsize=1024)
def address_in(text: str) -> IP | None:
    """The address, an IPv4-mapped one as IPv4; None where ``text`` is none."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address
