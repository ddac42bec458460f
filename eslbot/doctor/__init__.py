"""``eslbot doctor``: looks at a real installation and says what is wrong with it, and how to mend that.

It only reads. It changes nothing in FreeSWITCH, places no call and sends no notification; what others can see
of it is told in ``docs/doctor.md``. ``site`` is what the checks are given, ``switch`` what FreeSWITCH told of
itself, ``checks`` one room a subject, ``examine`` runs them, ``report`` tells the result.
"""
