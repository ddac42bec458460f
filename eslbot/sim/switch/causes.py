"""Hang-up causes and the SIP statuses they stand for.

Sources: ``hangup_cause_to_sip`` in mod_sofia.c (QSIG causes by RFC 4497, 8.4.1),
``sofia_glue_sip_cause_to_freeswitch`` in sofia_glue.c, ``switch_cause.c``.
"""

from __future__ import annotations

#: Cause to its Q.850 number and to the final response a refused INVITE gets; any other cause gives 480.
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
}

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


def named(text: str | None) -> str:
    """The cause ``text`` names, NORMAL_CLEARING where it names none (``switch_channel_str2cause``)."""
    cause = (text or "").strip().upper()
    return cause if cause in CAUSES else "NORMAL_CLEARING"


def of_status(status: int) -> str:
    """The cause of a call refused with ``status``."""
    return _FROM_STATUS.get(status, "NORMAL_TEMPORARY_FAILURE" if status < 600 else "CALL_REJECTED")
