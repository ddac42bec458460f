"""Stand-ins of FreeSWITCH, the PBX, Ameyo and a bot; the demo and the load test. Not installed on servers."""
