"""The page process: the call page, its API and `/metrics`: begin at :mod:`eslbot.web.process`."""
