"""What ``eslbot conf`` would write for a configuration, read as FreeSWITCH would read it.

Only as much of FreeSWITCH's preprocessor as our own tree uses: ``set``, ``include`` of one file, and
``$${…}`` in attributes. So what FreeSWITCH holds (``xml_locate``) can be compared with what it should hold.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from eslbot.config.model import Config
from eslbot.freeswitch.configuration import tree
from eslbot.freeswitch.password import NO_PASSWORD

_VARIABLE = re.compile(r"\$\$\{([^}]*)\}")


class Rendering:
    """The whole tree as one document. ``given`` are FreeSWITCH's own variables, such as ``local_ip_v4``."""

    def __init__(self, config: Config, given: Mapping[str, str]) -> None:
        self._files = {PurePosixPath(path): text for path, text in tree(config, NO_PASSWORD).items()}
        self._variables = dict(given)
        self._document = Element("document")
        self._read(PurePosixPath("freeswitch.xml"), self._document)

    def configuration(self, name: str) -> Element:
        """A ``<configuration>``, such as ``switch.conf``. Raises KeyError."""
        return self._find("configuration", name)

    def context(self, name: str) -> Element:
        """A context of the dialplan. Raises KeyError."""
        return self._find("context", name)

    @property
    def contexts(self) -> list[str]:
        """The names of all contexts."""
        return [context.get("name", "") for context in self._document.iter("context")]

    def _find(self, tag: str, name: str) -> Element:
        for element in self._document.iter(tag):
            if element.get("name") == name:
                return element
        raise KeyError(name)

    def _read(self, path: PurePosixPath, into: Element) -> None:
        self._copy(ElementTree.fromstring(self._files[path]), into, path)

    def _copy(self, source: Element, into: Element, path: PurePosixPath) -> None:
        if source.tag == "X-PRE-PROCESS":
            data = self._expanded(source.get("data", ""))
            if source.get("cmd") == "set":
                name, _, value = data.partition("=")
                self._variables[name] = value
            else:
                self._read(_joined(path.parent, data), into)
            return
        attributes = {name: self._expanded(value) for name, value in source.attrib.items()}
        copy = ElementTree.SubElement(into, source.tag, attributes)
        for child in source:
            self._copy(child, copy, path)

    def _expanded(self, text: str) -> str:
        return _VARIABLE.sub(lambda match: self._variables.get(match[1], ""), text)


def _joined(folder: PurePosixPath, name: str) -> PurePosixPath:
    parts: list[str] = []
    for part in (folder / name).parts:
        if part == "..":
            parts.pop()
        else:
            parts.append(part)
    return PurePosixPath(*parts)


def settings(element: Element | None) -> dict[str, str]:
    """The ``<param>`` of ``element`` and below; of equal names the last counts, as in FreeSWITCH."""
    if element is None:
        return {}
    return {node.get("name", ""): node.get("value", "") for node in element.iter("param")}


def actions(context: Element) -> list[tuple[str, str]]:
    """Every action of a context in order: application and data."""
    return [(node.get("application", ""), node.get("data", "")) for node in context.iter("action")]
