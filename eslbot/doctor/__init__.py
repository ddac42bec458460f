"""``eslbot doctor``: examines a real installation, and says what is wrong with it and how to mend that.

It only reads. It changes nothing in FreeSWITCH, places no call and sends no notification; what others can see
of it is in ``docs/doctor.md``.

* ``examine`` has the table of checks and runs them; ``checks`` has one module a subject.
* ``site`` is what every check is given: the configuration, ``switch_state`` (FreeSWITCH's answers),
  ``rendering`` (what it should have loaded), and this machine's processes.
* ``host``, ``network`` and ``logs`` are what checks examine with; ``findings`` is what they
  find, ``report`` and ``progress`` show it.
"""
