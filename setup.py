"""Packaging of eslbot; the metadata is in setup.cfg.

`freeswitch-conf/` stands at the top of the repository, where a telephony engineer looks for it, and is
installed as data of the package `eslbot.freeswitch_conf`, where `eslbot conf` finds it. The stand-ins in
`eslbot/sim` are a distribution of their own, which servers are without: its metadata stands beside them.
"""

from pathlib import Path

from setuptools import find_packages, setup

CONF = Path("freeswitch-conf")

setup(
    packages=[
        *find_packages(include=["eslbot", "eslbot.*"], exclude=["eslbot.sim", "eslbot.sim.*"]),
        "eslbot.freeswitch_conf",
    ],
    package_dir={"eslbot": "eslbot", "eslbot.freeswitch_conf": "freeswitch-conf"},
    package_data={
        "eslbot": ["py.typed"],
        "eslbot.botcheck": ["caller.flac"],
        "eslbot.relay.protocols": ["protocol.schema.json"],
        "eslbot.freeswitch_conf": [
            str(f.relative_to(CONF)) for f in CONF.rglob("*") if f.is_file() and f.suffix != ".pyc"
        ],
        "eslbot.ledger.migrations": ["*.mako"],
        "eslbot.web": ["static/*"],
    },
)
