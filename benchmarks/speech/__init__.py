"""The line, measured: whole calls through a real FreeSWITCH, the commit before beside them in the same run.

Run it with ``scripts/benchmark-speech``; ``--help`` tells the options. Three processes measure, on
one clock: callers (RTP), bots (WebSocket), and whoever looks at it all afterwards::

     peer ══RTP══▶ FreeSWITCH ──▶ eslbot serve (site, in a process of its own) ══WebSocket══▶ bot
          ◀══════                                                              ◀═════════════

=============  =========================================================================================
``marks``      what is said on both sides: sound of which any 16 samples tell where they stand
``hearing``    what has become of it: latency, gaps, jumps, lost and repeated samples; no network
``beside``     a process beside the measure, and how it is asked
``peer``       the callers' RTP, sent on time, received with the kernel's time stamps
``bot``        the bots, and how they talk
``subjects``   who is measured: this checkout, and the commit before in a temporary worktree
``site``       the script that runs one of them
``calls``      calls that are up, and all that is known of one
``cases``      what is done with them: raw figures
``rows``       the rows of the report: figures against bars
``report``     the report, as Markdown and JSON
``measures``   percentiles and numbered frames (``signals``), for other benchmarks
=============  =========================================================================================
"""
