"""Figures as the benchmark's cases return them, made up and round."""

from __future__ import annotations

from typing import Any

from benchmarks.report import About
from eslbot.sim.loadtest.machine import Machine

NO_LOSS = {"refused": 0, "reset": 0, "closed": 0, "silent": 0}

ABOUT = About(
    "2026-11-23 05:00 UTC",
    "scripts/benchmark",
    Machine(2, "AMD Example", "Linux 6", "3.11", 0.1),
    {"greenswitch": "0.0.19"},
    60.0,
)


def run(**more: Any) -> dict[str, Any]:
    """One run of the load generator."""
    common = {"lost": dict(NO_LOSS), "cpu_us_per_call": 2000.0, "cores_used": 1.0, "own_cpu": 0.2}
    return {**common, "completed": 100, **more}


def _series(name: str, values: list[float]) -> dict[str, Any]:
    return {name: {"n": len(values), "p50": values[0], "p99": values[-1]}, f"{name}_all": values}


DATA: dict[str, dict[str, Any]] = {
    "throughput": {
        "in_flight": 200,
        "failures": [],
        "rounds": {
            "eslbot": [run(calls_per_second=600.0), run(calls_per_second=700.0)],
            "bare gevent": [run(calls_per_second=6000.0), run(calls_per_second=7000.0)],
            "greenswitch": [run(calls_per_second=100.0), run(calls_per_second=100.0)],
        },
    },
    "paced": {
        "rate": 20.0,
        "failures": [],
        "rounds": {
            "eslbot": [
                run(**_series("answer_ms", [1.5, 1.5, 5.0]), **_series("end_to_marker_ms", [2.0, 3.0]))
            ],
            "bare gevent": [
                run(**_series("answer_ms", [1.0, 1.0, 2.0]), **_series("end_to_marker_ms", [0.5, 0.7]))
            ],
        },
    },
    "burst": {
        "calls": 400,
        "failures": [],
        "rounds": {
            "eslbot": [
                run(**_series("first_command_ms", [100.0, 140.0]), **_series("answer_ms", [200.0, 300.0]))
            ],
            "greenswitch": [run(**_series("first_command_ms", [900.0]), **_series("answer_ms", [950.0]))],
        },
    },
    "hold": {
        "rate": 150.0,
        "failures": [],
        "counts": {
            "5000": {
                "eslbot": run(kb_per_call=31.0, idle_core_percent=0.2, held=5000),
                "greenswitch": run(kb_per_call=117.0, idle_core_percent=12.0, held=5000),
            }
        },
    },
    "workers": {
        "cores": 2,
        "apart": False,
        "rounds": {
            "1": [run(calls_per_second=400.0, worker_cpu_seconds=[6.0])],
            "2": [run(calls_per_second=700.0, worker_cpu_seconds=[4.0, 6.0])],
        },
        "spread": [[264, 136]],
    },
    "set-up": {
        "switch": "a FreeSWITCH",
        "rate": 10.0,
        "rounds": {"eslbot": [[20.0], [30.0, 20.0]], "only-answer": [[2.0], [3.0, 2.0]]},
    },
    "handoff": {"rate": 20.0, "rounds": {"plain HTTP": [[1.0, 2.0], [3.0, 4.0]], "TLS": [[2.0, 6.0]]}},
    "media": {
        "switch": "a FreeSWITCH",
        "rest": {"eslbot": 0.0, "FreeSWITCH": 0.01},
        "phases": [
            {
                "bot": "listens",
                "calls": 10,
                "cores": {"eslbot": 0.0, "FreeSWITCH": 0.11},
                "kb_per_call": {"eslbot": 70.0, "FreeSWITCH": 1700.0},
            },
            {
                "bot": "speaks",
                "calls": 10,
                "cores": {"eslbot": 0.05, "FreeSWITCH": 0.11},
                "kb_per_call": {"eslbot": 90.0, "FreeSWITCH": 3700.0},
            },
        ],
        "whole": {
            "calls": 10,
            "seconds": 10.0,
            "cores": {"eslbot": 0.04, "FreeSWITCH": 0.11},
            "call_seconds": 6.0,
            "spoken_seconds": 3.0,
        },
    },
    "storm": {
        "waiting": 20,
        "down": 1.0,
        "fresh": 3.0,
        "variants": {
            "503": run(
                began=1000.0,
                slot_seconds=0.25,
                waiting_after=1.0,
                back_after=2.0,
                all_taken_after=2.9,
                accepted={"once": 20, "again": 0, "never": 0},
                fresh=3,
                fresh_answered=3,
                attempts_by_slot=[10, 10, 10, 10, 10, 10, 10, 10, 5, 5, 5, 5],
                posts_by_slot=[10, 10, 10, 10, 10, 10, 10, 10, 5, 5, 5, 5],
                accepted_by_slot=[0, 0, 0, 0, 0, 0, 0, 0, 5, 5, 5, 5],
                cpu=[[0.5, 0.5], [1.0, 1.0], [1.5, 1.1], [2.0, 1.2], [2.5, 1.3]],
                calm_answer_ms={"n": 3, "p50": 1.0, "p99": 2.0},
                **_series("fresh_down_ms", [1.0, 1.0, 3.0]),
            )
        },
    },
}
