"""The TOML file itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from eslbot.config.advice import advice
from eslbot.config.model import Config, ConfigError
from eslbot.doctor.findings import Finding, error, ok, warning

_SECRET = (
    "put the variable into the environment of the service, and run doctor with the same one "
    "(systemctl show -p EnvironmentFiles eslbot names its file); or use ${file:/path}"
)
_WHY = "the service does not start with this configuration, nor reload it"


def problems(path: Path, refused: ConfigError) -> Iterator[Finding]:
    """Each problem of a file that cannot be used."""
    for problem in refused.problems:
        key, _, what = problem.partition(": ")
        yield error(key, what, _WHY, _remedy(path, key, what))


def warnings(path: Path, config: Config) -> Iterator[Finding]:
    """Warnings about a file that can be used."""
    yield ok(str(path), f"{len(config.workspaces)} workspace(s), {len(config.sources)} source(s)")
    for text in config.warnings:
        key, _, what = text.partition(": ")
        why = (
            "the service refuses to start with it" if key.endswith("ca_file") else "see docs/configuration.md"
        )
        yield warning(key, what, why, f"mend {key} in {path}, or the file that it names and its rights")
    for one in advice(config):
        yield warning(one.key, one.found, one.why, one.remedy)


def _remedy(path: Path, key: str, what: str) -> str:
    if "environment variable" in what:
        return _SECRET
    if "cannot be read" in what:
        return f"let this user read it: ls -l {key if key.startswith('/') else path}"
    return f"mend {key} in {path}, then: eslbot check --config {path}"
