"""What several suites need: FreeSWITCH's end of an event socket, an Ameyo, the service as a process."""
