"""FreeSWITCH's configuration as package data; this file only lets Python find it. See README.md."""
