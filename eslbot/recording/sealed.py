"""Sealed files, which only the tenant's key opens: AES-256-GCM in chunks. Any change or cut is detected.

::

    header   magic (8), size of a chunk (4, little-endian), salt (16), key id (8)
    chunk 0  nonce (12), ciphertext, tag (16)
    chunk 1  …

Each file has a key of its own, derived (HKDF-SHA256) from the tenant's key, the salt, and the file's *name*:
workspace, call and part. So a file put in the place of another does not open. A chunk's associated data are
the header, the chunk's number, and whether it is the last: chunks in another order do not open, and a file
without a chunk that is marked as the last was cut off. All chunks but the last have the header's size.

The first chunk may be sealed a second time, with a new nonce: a FLAC file's header is known at its end.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

MAGIC = b"ESLREC01"
#: Bytes of a chunk: some 1.4 seconds of audio. What fills no chunk yet is lost if its relay dies.
CHUNK_SIZE = 16 * 1024
#: Bytes of a chunk that a reader accepts.
MAX_CHUNK_SIZE = 1024 * 1024
_HEAD = struct.Struct("<8sI16s8s")
_PLACE = struct.Struct("<Q?")
_NONCE, _TAG = 12, 16
#: Bytes of a tenant's key.
KEY_SIZE = 32


class BadSeal(Exception):
    """The file was changed, was sealed with another key, or is none of ours; the message says which."""


class NoKey(BadSeal):
    """None of our keys opens it."""


class CutOff(BadSeal):
    """The file is as it was sealed, but its end is missing."""


def key_id(key: bytes) -> bytes:
    """Eight bytes that identify a key and reveal nothing of it."""
    return hmac.digest(key, b"eslbot recording key id", hashlib.sha256)[:8]


def _own_key(key: bytes, salt: bytes, name: str) -> AESGCM:
    info = b"eslbot recording 1 " + name.encode()
    return AESGCM(HKDF(algorithm=SHA256(), length=KEY_SIZE, salt=salt, info=info).derive(key))


class Sealer:
    """Seals one file while it is written; ``write(bytes, offset)`` writes the sealed file."""

    def __init__(self, write: Callable[[bytes, int], None], key: bytes, name: str) -> None:
        self._write = write
        salt = os.urandom(16)
        self._head = _HEAD.pack(MAGIC, CHUNK_SIZE, salt, key_id(key))
        self._cipher = _own_key(key, salt, name)
        self._first = b""  # the first chunk, once it is whole
        self._rest = bytearray()  # what is not sealed yet
        self._sealed = 0  # chunks
        write(self._head, 0)

    def write(self, data: bytes, at: int) -> None:
        """Write at the file's end, or within its first chunk. Raises what ``write`` raises."""
        begin = self._sealed * CHUNK_SIZE
        end = begin + len(self._rest)
        if at == end:
            self._rest += data
            while len(self._rest) > CHUNK_SIZE:  # a chunk that is just full may be the last
                self._seal(self._sealed, bytes(self._rest[:CHUNK_SIZE]), last=False)
                self._sealed += 1
                del self._rest[:CHUNK_SIZE]
        elif not self._sealed and at + len(data) <= end:
            self._rest[at : at + len(data)] = data
        elif self._sealed and at + len(data) <= CHUNK_SIZE:
            self._seal(0, self._first[:at] + data + self._first[at + len(data) :], last=False)
        else:
            raise OSError(f"cannot write {len(data)} bytes at {at} of a sealed file of {end}")

    def finish(self) -> None:
        """Seal the last chunk: the file is complete."""
        self._seal(self._sealed, bytes(self._rest), last=True)

    def _seal(self, number: int, chunk: bytes, *, last: bool) -> None:
        if number == 0:
            self._first = chunk
        nonce = os.urandom(_NONCE)
        sealed = self._cipher.encrypt(nonce, chunk, self._head + _PLACE.pack(number, last))
        self._write(nonce + sealed, _HEAD.size + number * (_NONCE + CHUNK_SIZE + _TAG))


class Opener:
    """Opens a sealed file of ``size`` bytes; ``read(length, offset)`` reads the sealed file.

    With ``part`` a file that was cut off is read as far as it goes; see :attr:`whole`. Raises BadSeal.
    """

    def __init__(
        self, read: Callable[[int, int], bytes], size: int, keys: tuple[bytes, ...], name: str, *, part: bool
    ) -> None:
        self._read = read
        self._head = read(_HEAD.size, 0)
        #: Bytes of the opened file.
        self.size = 0
        #: Whether the file's last chunk is there.
        self.whole = False
        if part and len(self._head) < _HEAD.size:
            return
        if len(self._head) < _HEAD.size:
            raise CutOff("not even a header is there")
        magic, chunk, salt, named = _HEAD.unpack(self._head)
        if magic != MAGIC or not 0 < chunk <= MAX_CHUNK_SIZE:
            raise BadSeal("is no sealed recording")
        key = next((key for key in keys if hmac.compare_digest(key_id(key), named)), None)
        if key is None:
            raise NoKey(f"is sealed with another key ({named.hex()})")
        self._chunk = chunk
        self._cipher = _own_key(key, salt, name)
        self._whole_chunk = _NONCE + chunk + _TAG
        #: Complete chunks, and the bytes of the incomplete one behind them.
        count, rest = divmod(size - _HEAD.size, self._whole_chunk)
        self._cached: tuple[int, bytes] = (-1, b"")
        last = count if rest else count - 1
        tail = b""
        if last >= 0 and (not rest or rest >= _NONCE + _TAG):
            try:
                tail = self._open(last, last=True)
                self.whole = True
            except BadSeal:
                pass  # it is not the last chunk, or was not written to its end
        if not self.whole and not part:
            raise CutOff("is cut off: its last chunk is not there")
        self._last = last if self.whole else -1
        self._count = last if self.whole else count
        self.size = self._count * chunk + len(tail)

    def read(self, size: int, at: int) -> bytes:
        """Bytes of the opened file. Raises BadSeal."""
        pieces = []
        while size > 0 and at < self.size:
            number, begin = divmod(at, self._chunk)
            if self._cached[0] != number:
                self._cached = (number, self._open(number, last=number == self._last))
            piece = self._cached[1][begin : begin + size]
            pieces.append(piece)
            size -= len(piece)
            at += len(piece)
        return b"".join(pieces)

    def _open(self, number: int, *, last: bool) -> bytes:
        sealed = self._read(self._whole_chunk, _HEAD.size + number * self._whole_chunk)
        try:
            return self._cipher.decrypt(
                sealed[:_NONCE], sealed[_NONCE:], self._head + _PLACE.pack(number, last)
            )
        except (InvalidTag, ValueError) as error:
            raise BadSeal(f"chunk {number} was changed") from error
