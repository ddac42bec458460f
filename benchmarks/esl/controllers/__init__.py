"""The controllers under test: the same call script, each in its own library's way."""
