"""One module a subject; :mod:`eslbot.doctor.examine` has the table of all checks."""
