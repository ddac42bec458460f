"""What a call survives: the measures of issue 4, on a real FreeSWITCH or the stand-in.

Run it with ``scripts/benchmark-reliability`` or ``python -m benchmarks.reliability``; ``--help`` tells the
options.

=============  =========================================================================================
``cases``      the scenarios, each on a :class:`tests.support.lab.Lab` of its own
``results``    what each has measured
``measures``   what was heard: gaps inside the bot's tones; no network, tested by itself
``report``     figures against the bars, as text and JSON
=============  =========================================================================================
"""
