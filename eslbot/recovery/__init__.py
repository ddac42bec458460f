"""What is done before each start of FreeSWITCH (``eslbot recovery``), and what is known of its restarts.

FreeSWITCH keeps a row for each answered call in its core database (``track-calls``). A clean end leaves none;
so rows that are there before a start say that the one before died with calls, and the one that starts takes
them up (``sofia recover``). Should it be one of these calls that kills it, it would do so for ever: at the
third such start within a minute the rows are deleted, as `sofia recover flush` does it.

The command is root's and the database is FreeSWITCH's: a child with the rights of the directory's owner opens
it, and is killed when it takes too long (``core_database``). Nothing that it meets keeps FreeSWITCH from
starting (``before_start``). What came of it goes into a small file without any customer in it, for metrics,
page and ``eslbot doctor`` (``state``).

Callers hear nothing while it is loaded, so it imports little, and FreeSWITCH's unit runs it as
``python -m eslbot.recovery``, past the rest of the command line.
"""
