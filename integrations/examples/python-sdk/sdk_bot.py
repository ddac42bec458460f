"""A bot for eslbot, with its SDK: greets, can be interrupted, takes a key, and hands over."""

import asyncio
import os

from eslbot_bot import Audio, Call, Dtmf, EnergyVad, Mark, Sound, serve, tone

GREETING = Sound.wav(os.environ["GREETING"]).at(8000) if "GREETING" in os.environ else tone(440, 3.0, 8000)
YES, GOODBYE = tone(550, 0.3, 8000), tone(660, 0.4, 8000)
GROUPS = {"1": "sales", "2": "support"}


async def bot(call: Call) -> None:
    vad, greeting = EnergyVad(), "not heard"
    if not call.resumed:  # otherwise another process has greeted
        call.say(GREETING)
        call.mark("greeted")
    async for event in call:
        match event:
            case Audio(frame) if not call.held and vad.begins(frame) and call.speaking:
                call.clear()  # barge-in
                call.say(YES)
            case Mark("greeted", cleared):
                greeting = "interrupted" if cleared else "heard"
            case Dtmf(digit):
                call.clear()
                call.say(GOODBYE)
                summary = f"pressed {digit}, greeting {greeting}"
                call.end({"agent_group": GROUPS.get(digit, "general"), "summary": summary}, "key pressed")
                return


if __name__ == "__main__":
    asyncio.run(serve(bot, "127.0.0.1", int(os.environ.get("PORT", "9000"))))
