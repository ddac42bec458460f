"""The Prometheus metrics. Names are few and labels have few values: never a call's id or a number.

The processes of a service share their figures through files in ``PROMETHEUS_MULTIPROC_DIR``, which ``eslbot
serve`` sets before anything imports this module: a file for each row of processes, not for each process
(:mod:`eslbot.telemetry.metric_rows`). The page process reads them all (:mod:`eslbot.telemetry.exposition`).
Every gauge is ``live…``: it goes with its process. What each figure means to an operator is told in
``docs/operations.md``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, Self

import prometheus_client
from prometheus_client import values

from eslbot.telemetry import metric_rows

if "PROMETHEUS_MULTIPROC_DIR" in os.environ:  # before the first metric is made
    values.ValueClass = values.MultiProcessValue(metric_rows.claimed)  # type: ignore[no-untyped-call]


class _Remembers(prometheus_client.metrics.MetricWrapperBase):
    """A metric that finds its children again by one look; a call asks for some twenty."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._found: dict[tuple[str, ...], Self] = {}

    def labels(self, *values: str) -> Self:  # type: ignore[override]
        """The child of these label values, which are few: see above."""
        try:
            return self._found[values]
        except KeyError:
            child = self._found[values] = super().labels(*values)
            return child


class Counter(_Remembers, prometheus_client.Counter):
    """prometheus_client's."""


class Gauge(_Remembers, prometheus_client.Gauge):
    """prometheus_client's."""


class Histogram(_Remembers, prometheus_client.Histogram):
    """prometheus_client's."""


# -- calls ------------------------------------------------------------------------------------------------

CALLS = Counter("eslbot_calls", "Answered calls that ended, by outcome.", ["workspace", "outcome"])
CALLS_ACTIVE = Gauge(
    "eslbot_calls_active", "Calls that a worker holds now.", ["workspace"], multiprocess_mode="livesum"
)
CALLS_BY_STAGE = Gauge(
    "eslbot_calls_by_stage",
    "Calls that a worker holds now, by where they are in their story.",
    ["workspace", "stage"],
    multiprocess_mode="livesum",
)
CALLS_LIMIT = Gauge(
    "eslbot_calls_limit",
    "The workspace's max_calls: with so many calls up the next one is refused.",
    ["workspace"],
    multiprocess_mode="livemax",
)
WORKERS_READY = Gauge("eslbot_workers_ready", "Workers that take new calls now.", multiprocess_mode="livesum")
WORKERS_CALLS_LIMIT = Gauge(
    "eslbot_workers_calls_limit",
    "Calls that the workers that take new calls could hold together (server.max_calls each).",
    multiprocess_mode="livesum",
)
WORKERS_WANTED = Gauge(
    "eslbot_workers_wanted", "Workers that the configuration asks for.", multiprocess_mode="livemax"
)
WORKER_STARTED = Gauge(
    "eslbot_worker_started_timestamp_seconds",
    "When the worker that is the youngest began, in epoch seconds.",
    multiprocess_mode="livemax",
)
REFUSALS = Counter("eslbot_refusals", "Calls refused before the answer, by reason.", ["reason"])
OVER_BUDGET = Counter(
    "eslbot_over_budget",
    "INVITEs refused because the sources of this workspace have sent more than its max_cps.",
    ["workspace"],
)
SETUP_SECONDS = Histogram(
    "eslbot_setup_seconds",
    "From the INVITE to our 200.",
    ["workspace"],
    buckets=(0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
TAKE_OVERS = Counter("eslbot_take_overs", "Calls that arrived in the middle of their story.", ["stage"])
CALLS_RECOVERED = Counter(
    "eslbot_calls_recovered", "Calls that FreeSWITCH came back with after it had died.", ["workspace"]
)
ENDED_CALLS_RECOVERED = Counter(
    "eslbot_ended_calls_recovered",
    "Calls that FreeSWITCH came back with though their PBX had ended them; they get no bot.",
)
CALLS_STRANDED = Counter(
    "eslbot_calls_stranded",
    "Calls that did not come back behind FreeSWITCH's death: Ameyo was notified without them.",
    ["workspace"],
)
HAND_OVERS = Counter("eslbot_hand_overs", "Calls that a leaving worker gave to the next one.")

#: A call that needs somebody, as long as it does: what is red on the page, told by the worker that has it.
CALLS_HAND_OFF_FAILING = Gauge(
    "eslbot_calls_hand_off_failing",
    "Calls whose customer waits now for an Ameyo that has not accepted.",
    ["workspace"],
    multiprocess_mode="livesum",
)
CALLS_BYE_OVERDUE = Gauge(
    "eslbot_calls_bye_overdue",
    "Calls that Ameyo has accepted, and whose BYE is overdue now.",
    ["workspace"],
    multiprocess_mode="livesum",
)
CALLS_NOT_VERIFIED = Gauge(
    "eslbot_calls_not_verified",
    "Answered calls that a worker holds now without knowing whose they are.",
    multiprocess_mode="livesum",
)

# -- the bot ----------------------------------------------------------------------------------------------

FIRST_AUDIO_SECONDS = Histogram(
    "eslbot_first_audio_seconds",
    "From our 200 until the caller hears the bot for the first time.",
    ["workspace"],
    buckets=(0.1, 0.25, 0.5, 1, 2, 3, 5, 10),
)
#: Conversation: 200 ms feel like a person, 1 s like a machine.
_TURN_BUCKETS = (0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10)
TURN_SECONDS = Histogram(
    "eslbot_turn_seconds",
    "From the caller's last word until the caller hears the bot's answer.",
    ["workspace"],
    buckets=_TURN_BUCKETS,
)
TURN_BOT_SECONDS = Histogram(
    "eslbot_turn_bot_seconds",
    "Of that, until the answer's audio had come from the bot: its own share.",
    ["workspace"],
    buckets=_TURN_BUCKETS,
)
BARGE_IN_SECONDS = Histogram(
    "eslbot_barge_in_seconds",
    "From the caller's first word while the bot is heard until the bot is silent.",
    ["workspace"],
    buckets=_TURN_BUCKETS,
)
BARGE_IN_BOT_SECONDS = Histogram(
    "eslbot_barge_in_bot_seconds",
    "Of that, until the bot's clear had come.",
    ["workspace"],
    buckets=_TURN_BUCKETS,
)
OVERLAP_SECONDS = Histogram(
    "eslbot_overlap_seconds",
    "For how long both were heard without a barge-in, by who began to speak over the other.",
    ["workspace", "by"],
    buckets=_TURN_BUCKETS,
)
BOT_MESSAGES_IGNORED = Counter(
    "eslbot_bot_messages_ignored", "Messages of bots that were not used.", ["workspace", "why"]
)
BOT_OVER_BUDGET = Counter(
    "eslbot_bot_over_budget",
    "Bots that failed because they sent more than any bot has to say.",
    ["workspace"],
)

# -- the relay --------------------------------------------------------------------------------------------

RELAY_CALLS = Gauge("eslbot_relay_calls", "Calls that a relay holds now.", multiprocess_mode="livesum")
RELAY_STREAMS = Gauge(
    "eslbot_relay_streams", "Streams of mod_audio_stream that are up now.", multiprocess_mode="livesum"
)
RELAY_READY = Gauge(
    "eslbot_relay_ready", "Relay processes that take new streams now.", multiprocess_mode="livesum"
)
RELAY_WANTED = Gauge(
    "eslbot_relay_wanted",
    "Relay processes that this service is to have (relay.processes).",
    multiprocess_mode="livemax",
)
#: Why a stream gets no call.
REFUSED_WHYS = ("no_identity", "unknown_workspace", "bad_request", "full", "leaving", "not_made")
RELAY_REFUSED = Counter("eslbot_relay_refused", "Streams that a relay has refused, by reason.", ["why"])
RELAY_STRANGERS = Counter(
    "eslbot_relay_strangers",
    "Connections to relay.listen that were closed because too many were open that had not said who they are.",
)
RELAY_STREAMS_LOST = Counter(
    "eslbot_relay_streams_lost", "Streams of mod_audio_stream that ended without a close frame."
)
#: Why speech that a bot said was not heard.
SPEECH_LOST_WHYS = ("full", "missed")
RELAY_SPEECH_LOST = Counter(
    "eslbot_relay_speech_lost_seconds",
    "Speech of bots that callers did not hear: relay.directory was full, or FreeSWITCH was faster.",
    ["why"],
)
RELAY_BAD_ORDERS = Counter(
    "eslbot_relay_bad_orders",
    "Texts that a relay has not understood; controllers of another version send such.",
)
RELAY_STREAMS_RESTARTED = Counter(
    "eslbot_relay_streams_restarted", "Streams to relays that broke in mid-call and were started again."
)
RELAY_TEXTS_IGNORED = Counter(
    "eslbot_relay_texts_ignored", "Texts of relays that no controller of this version can read."
)
RELAY_DEATHS = Counter("eslbot_relay_deaths", "Relay processes that died without having been told to.")
#: How a connection to a bot can end but by its close frame.
BOTS_LOST_WHYS = ("broken", "protocol", "text", "unread", "flood", "ping", "internal")
RELAY_BOTS_LOST = Counter(
    "eslbot_relay_bots_lost",
    "Connections to bots that ended without the bot's close frame, by reason.",
    ["why"],
)

# -- recordings -------------------------------------------------------------------------------------------

RECORDINGS = Counter("eslbot_recordings", "Parts of recordings that were begun.", ["workspace"])
#: Why a call that was to be recorded is not, or not to its end.
RECORDING_WHYS = ("full", "slow", "failed", "unannounced")
RECORDINGS_FAILED = Counter(
    "eslbot_recordings_failed", "Recordings that were not made, or end before their call, by reason.", ["why"]
)
RECORDINGS_BYTES = Gauge(
    "eslbot_recordings_bytes",
    "What all recordings of this host take, as of the last sweep.",
    multiprocess_mode="livemax",
)
#: Why a recording was deleted by itself.
DELETED_WHYS = ("keep", "max_bytes")
RECORDINGS_DELETED = Counter(
    "eslbot_recordings_deleted", "Recordings that were deleted: they were old, or all were too much.", ["why"]
)

# -- Ameyo ------------------------------------------------------------------------------------------------

BOT_END_TO_POST_SECONDS = Histogram(
    "eslbot_bot_end_to_post_seconds",
    "From the bot's end until the first POST to Ameyo begins; the bot's last words are played in between.",
    ["workspace"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
ATTEMPTS = Counter("eslbot_notification_attempts", "POSTs to Ameyo, by verdict.", ["workspace", "verdict"])
NOTIFICATION_SECONDS = Histogram(
    "eslbot_notification_seconds",
    "From the beginning of a POST to Ameyo until its answer, or until it was given up.",
    ["workspace", "verdict"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
IN_DOUBT = Counter(
    "eslbot_notifications_in_doubt",
    "Notifications sent again because a worker went away before it had noted Ameyo's answer.",
    ["workspace"],
)

CERTIFICATE_ENDS = Gauge(
    "eslbot_certificate_ends_timestamp_seconds",
    "Until when the certificate counts that the workspace's Ameyo has shown last, in epoch seconds.",
    ["workspace"],
    multiprocess_mode="livemostrecent",
)

# -- FreeSWITCH, and the BYE ------------------------------------------------------------------------------

HOLD_SECONDS = Histogram(
    "eslbot_hold_seconds",
    "From Ameyo's acceptance until the PBX's BYE.",
    ["workspace"],
    buckets=(0.25, 0.5, 1, 2, 5, 10, 30, 60),
)
BYE_OVERDUE = Counter(
    "eslbot_bye_overdue", "Times that a call handed off had no BYE within bye_timeout.", ["workspace"]
)
SEND_BYE = Counter("eslbot_send_bye", "Answered calls that our side ended with BYE: an alarm.")
MEDIA_TIMEOUTS = Counter(
    "eslbot_media_timeouts", "Calls ended because no RTP came for media_timeout.", ["workspace"]
)
PEERS_REFUSED = Counter(
    "eslbot_peers_refused",
    "Event-socket peers outside server.switches, or of a user who is not server.switch_user.",
)
CONNECTIONS_WITHOUT_CALL = Counter(
    "eslbot_connections_without_call", "Event-socket connections that never became a call (port probes)."
)
EVENTS_LOST = Counter("eslbot_events_lost", "Events of a call's dropped because too many were waiting.")

# -- the ledger -------------------------------------------------------------------------------------------

LEDGER_CONFIGURED = Gauge(
    "eslbot_ledger_configured", "1 where calls are recorded at all.", multiprocess_mode="livemax"
)
LEDGER_UP = Gauge(
    "eslbot_ledger_up",
    "1 while the database takes what is written to it.",
    multiprocess_mode="livesum",  # the page process's figure, and zeroes of all others
)
LEDGER_BACKLOG_BYTES = Gauge(
    "eslbot_ledger_backlog_bytes",
    "What waits in the journals to get into the database.",
    multiprocess_mode="livesum",
)
LEDGER_FACTS = Counter("eslbot_ledger_facts", "Facts of calls that were read from journals.")
LEDGER_CALLS_WRITTEN = Counter("eslbot_ledger_calls_written", "Rows of calls written to the database.")
#: What can become of a call's spans.
TRACES_BECAME = ("exported", "refused", "dropped", "unread")
TRACES = Counter(
    "eslbot_traces",
    "Calls whose spans were to be sent, by what became of them.",
    ["became"],
)
SPANS = Counter("eslbot_spans", "Spans that were sent to the collector, or lost on the way.", ["became"])
LEDGER_FACTS_LOST = Counter(
    "eslbot_ledger_facts_lost", "Facts that a worker could not write to its journal: gaps in the records."
)

LEDGER_LAG = Gauge(
    "eslbot_ledger_lag_seconds",
    "For how long facts have been waiting for the database without a pause; also while nobody reads them.",
    multiprocess_mode="livemax",
)

# -- health ---------------------------------------------------------------------------------------------

HEALTH = Gauge(
    "eslbot_health",
    "Of each component: 2 green, 1 amber, 0 red, -1 not known. The workspace's name for its bot and Ameyo.",
    ["component", "workspace"],
    multiprocess_mode="livemostrecent",
)
HEALTH_CHECKED = Gauge(
    "eslbot_health_checked_timestamp_seconds",
    "When the last round of looks was over, in epoch seconds.",
    multiprocess_mode="livemax",
)
READY = Gauge("eslbot_ready", "1 while the service is ready (/readyz).", multiprocess_mode="livemostrecent")

# -- ourselves --------------------------------------------------------------------------------------------

NOT_VERIFIED = Counter(
    "eslbot_identity_not_verified",
    "Answered calls whose signed identity was missing or not ours: each may be a waiting customer.",
)
INTERNAL_ERRORS = Counter("eslbot_internal_errors", "Faults of eslbot itself; each is told in the log.")


def expect(workspaces: Iterable[str], verdicts: Iterable[str]) -> None:
    """Begin what alarms look at with 0: Prometheus sees no increase in a series that begins with 1."""
    known = list(verdicts)
    for workspace in workspaces:
        BYE_OVERDUE.labels(workspace)
        CALLS_BYE_OVERDUE.labels(workspace)
        CALLS_HAND_OFF_FAILING.labels(workspace)
        CALLS_RECOVERED.labels(workspace)
        CALLS_STRANDED.labels(workspace)
        BOT_OVER_BUDGET.labels(workspace)
        MEDIA_TIMEOUTS.labels(workspace)
        for verdict in known:
            ATTEMPTS.labels(workspace, verdict)


def expect_relay() -> None:
    """The same, for a relay."""
    for why in REFUSED_WHYS:
        RELAY_REFUSED.labels(why)
    for why in SPEECH_LOST_WHYS:
        RELAY_SPEECH_LOST.labels(why)
    for why in BOTS_LOST_WHYS:
        RELAY_BOTS_LOST.labels(why)
    for why in RECORDING_WHYS:
        RECORDINGS_FAILED.labels(why)
    for why in DELETED_WHYS:
        RECORDINGS_DELETED.labels(why)
