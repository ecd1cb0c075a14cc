"""HTTP/1.1 answers, read strictly: what a server sends is well-formed to the last byte, or not."""

import json
import re
from dataclasses import dataclass

_STATUS = re.compile(rb"HTTP/1\.1 ([1-5][0-9]{2}) [ -~]*")
_HEADER = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+): ([!-~][ -~]*)?")


class Malformed(AssertionError):
    """Bytes that are no sequence of HTTP/1.1 answers."""


@dataclass(frozen=True)
class Answer:
    """One answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> object:
        """Its body, which has to be JSON."""
        return json.loads(self.body)


def answers_in(sent: bytes, *, to_head: bool = False) -> list[Answer]:
    """All of them; raises ``Malformed``. ``to_head``: some may be to HEAD, which has no body."""
    found: list[Answer] = []
    while sent:
        head, gap, rest = sent.partition(b"\r\n\r\n")
        if not gap:
            raise Malformed(f"an answer ends within its head: {sent[:80]!r}")
        first, *lines = head.split(b"\r\n")
        status = _STATUS.fullmatch(first)
        if status is None:
            raise Malformed(f"no status line: {first[:80]!r}")
        headers: dict[str, str] = {}
        for line in lines:
            header = _HEADER.fullmatch(line)
            if header is None:
                raise Malformed(f"no header: {line[:80]!r}")
            name = header[1].decode().lower()
            if name in headers:
                raise Malformed(f"twice: {name}")
            headers[name] = (header[2] or b"").decode()
        code = int(status[1])
        if code == 100:
            sent = rest
            continue
        length = int(headers["content-length"])
        if to_head and (not rest or rest.startswith(b"HTTP/1.1 ")):
            length = 0
        if len(rest) < length:
            raise Malformed("an answer ends within its body")
        found.append(Answer(code, headers, rest[:length]))
        sent = rest[length:]
    return found
