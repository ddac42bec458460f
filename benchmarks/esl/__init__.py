"""Calls a second, latencies, memory and idle CPU of eslbot at its event socket, beside others."""
