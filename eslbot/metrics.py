"""What is counted. Names are few and labels have few values: never a call's id or a number.

Workers share their figures through files in ``PROMETHEUS_MULTIPROC_DIR``, which ``eslbot serve`` sets before
anything imports this module.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge

CALLS = Counter("eslbot_calls", "Answered calls that ended, by outcome.", ["workspace", "outcome"])
CALLS_ACTIVE = Gauge(
    "eslbot_calls_active", "Calls that a worker holds now.", ["workspace"], multiprocess_mode="livesum"
)
REFUSALS = Counter("eslbot_refusals", "Calls refused before the answer, by reason.", ["reason"])
PEERS_REFUSED = Counter("eslbot_peers_refused", "Event-socket peers outside server.switches.")
CONNECTIONS_WITHOUT_CALL = Counter(
    "eslbot_connections_without_call", "Event-socket connections that never became a call (port probes)."
)
TAKE_OVERS = Counter("eslbot_take_overs", "Calls that arrived in the middle of their story.", ["stage"])
HAND_OVERS = Counter("eslbot_hand_overs", "Calls that a leaving worker gave to the next one.")
ATTEMPTS = Counter("eslbot_notification_attempts", "POSTs to Ameyo, by verdict.", ["workspace", "verdict"])
IN_DOUBT = Counter(
    "eslbot_notifications_in_doubt",
    "Notifications sent again because a worker went away before it had noted Ameyo's answer.",
    ["workspace"],
)
BYE_OVERDUE = Counter(
    "eslbot_bye_overdue", "Times that a call handed off had no BYE within bye_timeout.", ["workspace"]
)
MEDIA_TIMEOUTS = Counter(
    "eslbot_media_timeouts", "Calls ended because no RTP came for media_timeout.", ["workspace"]
)
BOT_MESSAGES_IGNORED = Counter(
    "eslbot_bot_messages_ignored", "Messages of bots that were not used.", ["workspace", "why"]
)
SPEECH_FAILURES = Counter("eslbot_speech_failures", "Speech that was not played as it should be.", ["why"])
SEND_BYE = Counter("eslbot_send_bye", "Answered calls that our side ended with BYE: an alarm.")
EVENTS_LOST = Counter("eslbot_events_lost", "Events dropped because a bot flooded its call.")
INTERNAL_ERRORS = Counter("eslbot_internal_errors", "Faults of eslbot itself; each is told in the log.")
LEDGER_FACTS_LOST = Counter("eslbot_ledger_facts_lost", "Facts that no journal has taken.")
