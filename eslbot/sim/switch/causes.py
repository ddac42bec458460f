"""Hang-up causes and the SIP statuses they stand for.

Sources: ``hangup_cause_to_sip`` in mod_sofia.c (QSIG causes by RFC 4497, 8.4.1),
``sofia_glue_sip_cause_to_freeswitch`` in sofia_glue.c, ``switch_cause.c``.
"""

from __future__ import annotations

#: Cause to its number, of Q.850 up to 127, and to the final response a refused INVITE gets; any other cause
#: gives 480.
CAUSES: dict[str, tuple[int, int]] = {
    "UNALLOCATED_NUMBER": (1, 404),
    "NO_ROUTE_DESTINATION": (3, 404),
    "NORMAL_CLEARING": (16, 480),
    "USER_BUSY": (17, 486),
    "NO_USER_RESPONSE": (18, 408),
    "NO_ANSWER": (19, 480),
    "CALL_REJECTED": (21, 603),
    "EXCHANGE_ROUTING_ERROR": (25, 483),
    "DESTINATION_OUT_OF_ORDER": (27, 502),
    "INVALID_NUMBER_FORMAT": (28, 484),
    "FACILITY_REJECTED": (29, 501),
    "NORMAL_UNSPECIFIED": (31, 480),
    "NORMAL_CIRCUIT_CONGESTION": (34, 503),
    "NETWORK_OUT_OF_ORDER": (38, 503),
    "NORMAL_TEMPORARY_FAILURE": (41, 503),
    "SWITCH_CONGESTION": (42, 503),
    "REQUESTED_CHAN_UNAVAIL": (44, 503),
    "OUTGOING_CALL_BARRED": (52, 403),
    "INCOMING_CALL_BARRED": (54, 403),
    "BEARERCAPABILITY_NOTAVAIL": (58, 503),
    "SERVICE_UNAVAILABLE": (63, 480),
    "SERVICE_NOT_IMPLEMENTED": (79, 501),
    "INCOMPATIBLE_DESTINATION": (88, 488),
    "RECOVERY_ON_TIMER_EXPIRE": (102, 504),
    "ORIGINATOR_CANCEL": (487, 487),
    "SYSTEM_SHUTDOWN": (501, 480),
    "MEDIA_TIMEOUT": (804, 480),
}

LAST_OF_Q850 = 127

PHRASES: dict[int, str] = {
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    408: "Request Timeout",
    480: "Temporarily Unavailable",
    483: "Too Many Hops",
    484: "Address Incomplete",
    486: "Busy Here",
    487: "Request Terminated",
    488: "Not Acceptable Here",
    500: "Internal Server Error",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Time-out",
    603: "Decline",
}

_FROM_STATUS: dict[int, str] = {
    403: "CALL_REJECTED",
    404: "UNALLOCATED_NUMBER",
    408: "RECOVERY_ON_TIMER_EXPIRE",
    480: "NO_USER_RESPONSE",
    486: "USER_BUSY",
    487: "ORIGINATOR_CANCEL",
    488: "INCOMPATIBLE_DESTINATION",
    502: "NETWORK_OUT_OF_ORDER",
    504: "RECOVERY_ON_TIMER_EXPIRE",
    603: "CALL_REJECTED",
}


def sip_reason(cause: str) -> str:
    """The Reason header of a BYE (``sofia_on_hangup``)."""
    number = CAUSES.get(cause, (16, 0))[0]
    return f'{"Q.850" if number <= LAST_OF_Q850 else "SIP"};cause={number};text="{cause}"'


def q850(cause: str) -> int:
    """The cause's Q.850 number; FreeSWITCH's own count as normal clearing (``switch_channel_cause_q850``)."""
    number = CAUSES.get(cause, (0, 0))[0]
    return number if number <= LAST_OF_Q850 else 16


def named(text: str | None) -> str:
    """The cause ``text`` names, NORMAL_CLEARING where it names none (``switch_channel_str2cause``)."""
    cause = (text or "").strip().upper()
    return cause if cause in CAUSES else "NORMAL_CLEARING"


def of_status(status: int) -> str:
    """The cause of a call refused with ``status``."""
    return _FROM_STATUS.get(status, "NORMAL_TEMPORARY_FAILURE" if status < 600 else "CALL_REJECTED")
