"""The Ameyo PBX's stand-in: SIPp places the calls, a REST server takes the hand-off and ends them."""

from eslbot.sim.pbx.ameyo import AmeyoServer
from eslbot.sim.pbx.call import PbxCall
from eslbot.sim.pbx.load import Load
from eslbot.sim.pbx.media import Recording
from eslbot.sim.pbx.notification import Notification
from eslbot.sim.pbx.pbx import Pbx
from eslbot.sim.pbx.results import CallResult, LoadResult
from eslbot.sim.pbx.sipp import SippMissing
from eslbot.sim.pbx.steps import Answer, Drop, Stall
from eslbot.sim.pbx.voices import Voices, VoicesError

__all__ = [
    "AmeyoServer",
    "Answer",
    "CallResult",
    "Drop",
    "Load",
    "LoadResult",
    "Notification",
    "Pbx",
    "PbxCall",
    "Recording",
    "SippMissing",
    "Stall",
    "Voices",
    "VoicesError",
]
