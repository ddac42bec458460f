"""The Ameyo PBX's stand-in: SIPp places the calls, a REST server takes the hand-off and ends them."""

from eslbot.sim.pbx.ameyo import AmeyoServer, Answer, Drop, Notification, Stall, Unkind
from eslbot.sim.pbx.media import Recording
from eslbot.sim.pbx.pbx import CallResult, Load, LoadResult, Pbx, PbxCall
from eslbot.sim.pbx.sipp import SippMissing
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
    "Unkind",
    "Voices",
    "VoicesError",
]
