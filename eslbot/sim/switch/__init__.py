"""The stand-in switch: FreeSWITCH with the community mod_audio_stream, for machines that have neither.

It speaks SIP and RTP to a PBX, the outbound event socket to eslbot and WebSocket to a relay, and imitates
what was measured on a real FreeSWITCH 1.11 and read in its sources. It is for tests and demonstrations, never
for customers.

It does

* SIP over UDP and TCP as a callee: IP access list, INVITE to BYE, CANCEL, re-INVITE, INFO keys, timers
  of RFC 3261;
* RTP with PCMU and PCMA, one 20 ms clock, symmetric ports, keys by RFC 4733, ``media_timeout``;
* the rendered dialplan, in code (``dialplan.py``);
* the outbound event socket in ``async full`` mode with FreeSWITCH's replies, quoting, encoding,
  subscriptions, filters, linger, and the take-over of a call by the next controller;
* the applications and API commands eslbot uses; ``uuid_displace`` with the reads on the file that FreeSWITCH
  makes;
* die, and take its calls up again from what the process before has left (``recovery.py``);
* ``uuid_audio_stream`` with its replies, events and error codes, frames before its first text, and empty
  frames where the PBX sent nothing.

It does not

* call out, register, authenticate, transfer, bridge or record; speak TLS, SRTP, RTCP, IPv6 media or another
  codec;
* do ``unicast``, ``sendevent``, XML events, dialplan XML or ``${function()}`` expansion;
* lose uplink frames when a playback starts or while no controller holds the call, lose the start metadata,
  keep a frame of a displaced file back, be late behind a stall, write as slowly as it reads packets of 10 ms,
  or delay events to a 20 ms poll: it is kinder there;
* write a server's ``streamAudio`` to a file, play what is still growing, or displace anything but silence and
  raw L16 at 8,000 Hz;
* take up a call over TCP, or wait as long as mod_sofia does at its start (1.5 s);
* wait for ever on a host that swallows SYNs (45 s), or take an INVITE without an offer (488).
"""

from .server import Switch, SwitchSettings, run

__all__ = ["Switch", "SwitchSettings", "run"]
