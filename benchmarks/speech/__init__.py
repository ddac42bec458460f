"""How the bot sounds: the measure of speech through the whole path, for a real FreeSWITCH and the stand-in.

Run it with ``scripts/benchmark-speech`` or ``python -m benchmarks.speech``; ``--help`` tells the options.

=============  =========================================================================================
``signals``    what is sent: speech of two tones, numbered frames of the caller
``measures``   what has become of it: gaps, jumps, latency, lost frames; no network, tested by themselves
``cases``      the scenarios, on :class:`eslbot.sim.lab.Lab`
``machine``    the machine and the processor time of processes
``report``     figures against the bars, as text, Markdown and JSON
=============  =========================================================================================
"""
