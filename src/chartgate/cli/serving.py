"""The decision service as a command: beside whatever runs in the state folder, or by itself.

Rules kept: one process writes a log, so whoever comes second writes through the first; what this
command started, it stops, in order; where the service answers is known to the other commands for as
long as it does.
"""

import asyncio
import contextlib
import shlex
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from chartgate.adapters.audit_sources import running
from chartgate.adapters.decision_service import DecisionService, ServiceConfig, run
from chartgate.adapters.state import Instance, State, default_root
from chartgate.app.authzen_metadata import NotABaseUrl, check_base_url
from chartgate.cli import screen
from chartgate.demo.folder import AlreadyRunning, locked, one_line_for_the_disk, require_free
from chartgate.errors import Misconfigured


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked for on the command line."""

    state: Path | None
    listen: str
    unix: Path | None
    workers: int
    certificate: Path | None
    key: Path | None
    names: tuple[str, ...]
    base_url: str
    callers: Path | None
    durability: str
    plain_http: bool
    access_log: bool


def serve(wanted: Wanted, *, json: bool) -> int:
    """Serve the instance of a state folder until told to end."""
    state = State((wanted.state or default_root()).absolute())
    instance = state.instance()
    screen.log_in_one_line()
    with one_line_for_the_disk(state.root), _house(state, instance) as own_writer:
        config = _config(wanted, state, own_writer=own_writer)
        if config.port:
            require_free(config.host, config.port, option="--listen")
        with _announced(state) as announce:

            def ready(service: DecisionService) -> None:
                address = Address.of(config, service)
                announce(address.url)
                if json:
                    sys.stdout.write(msgspec.json.encode(address.facts()).decode() + "\n")
                    sys.stdout.flush()
                else:
                    _show(address, state, own_writer=own_writer)

            asyncio.run(run(config, on_ready=ready))
    if not json:
        screen.console().print("Stopped.")
    return 0


@dataclass(frozen=True, slots=True)
class Address:
    """Where the service answers."""

    url: str
    unix: str
    authority: Path | None
    workers: int
    durability: str
    pids: dict[str, int]

    @classmethod
    def of(cls, config: ServiceConfig, service: DecisionService) -> "Address":
        """Of a service that runs."""
        host = f"[{config.host}]" if ":" in config.host else config.host
        shown = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)  # noqa: S104
        return cls(
            f"{'http' if config.plain else 'https'}://{shown}:{service.port}",
            config.unix,
            service.authority,
            config.workers,
            config.durability,
            service.pids,
        )

    def facts(self) -> dict[str, object]:
        """For programs."""
        return {
            "url": self.url,
            "unix": self.unix,
            "ca": None if self.authority is None else str(self.authority),
            "workers": self.workers,
            "durability": self.durability,
            "pids": self.pids,
        }


def curl(url: str, authority: Path | None, token: Path | str, question: str) -> str:
    """A line that asks one question."""
    trust = f" --cacert {shlex.quote(str(authority))}" if authority is not None else ""
    return (
        f'curl -s{trust} -H "Authorization: Bearer $(cat {shlex.quote(str(token))})" '
        f"-H 'Content-Type: application/json' -d '{question}' {url}/access/v1/evaluation"
    )


QUESTION = (
    '{"subject":{"type":"User","id":"PERSON"},"action":{"name":"view"},'
    '"resource":{"type":"Record","id":"1","properties":{"patient":"1","category":"labs"}}}'
)


def _show(address: Address, state: State, *, own_writer: bool) -> None:
    out = screen.console()
    number = "1 worker" if address.workers == 1 else f"{address.workers} workers"
    out.print(f"The decision service answers at {address.url} ({number})", soft_wrap=True)
    out.print(f"and at {address.unix}.", soft_wrap=True)
    writer = "written by this command" if own_writer else "written by what runs there already"
    out.print(f"State folder {state.root}; its audit log is {writer}.", soft_wrap=True)
    out.print(
        "A decision is on disk before it is answered."
        if address.durability == "fsync"
        else "A decision that releases nothing may be answered up to 5 ms before it is on disk."
    )
    screen.heading(out, "Ask it")
    name = screen.command_name()
    instance = state.instance()
    own = state.token_file(instance.asker) if instance.asker else None
    token = own if own is not None and own.exists() else Path("TOKEN_FILE")
    screen.lines(
        out,
        [
            curl(address.url, address.authority, token, QUESTION),
            f"{name} ask PERSON view --patient KEY --category labs"
            + ("" if own is not None and own.exists() else " --token-file TOKEN_FILE"),
        ],
    )
    if token != own:
        out.print(f"An application needs an account and a token: `{name} service add --help`.")
    screen.heading(out, "On call")
    trust = f" --cacert {shlex.quote(str(address.authority))}" if address.authority else ""
    screen.lines(
        out, [f"curl -s{trust} {address.url}/readyz", f"curl -s{trust} {address.url}/metrics"]
    )
    out.print()
    out.print("Ctrl-C answers what is under way and ends.")


@contextmanager
def _house(state: State, instance: Instance) -> Iterator[bool]:
    """What the service stands on; whether the log's writer is ours to start."""
    with ExitStack() as stack:
        state.create()
        try:
            stack.enter_context(locked(state))
        except AlreadyRunning:
            if not state.log_socket.exists():
                raise Misconfigured(
                    f"what runs in {state.root} is not ready: its audit log takes no entries yet"
                ) from None
            if _is_heard(state.decision_socket):
                # Two of them would be the same nodes twice.
                raise Misconfigured(
                    f"a decision service of {state.root} runs already at {instance.decisions}: stop "
                    "it first, or give it more --workers"
                ) from None
            yield False
            return
        control = stack.enter_context(
            running(state.control_pg, instance.control, embedded=instance.embedded)
        )
        legacy = stack.enter_context(
            running(state.legacy_pg, instance.legacy, embedded=instance.embedded)
        )
        if (control, legacy) != (instance.control, instance.legacy):
            state.save_instance(
                msgspec.structs.replace(instance, control=control, legacy=legacy, port=0)
            )
        yield True


def _is_heard(path: Path) -> bool:
    """Whether somebody listens at a Unix socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        return link.connect_ex(str(path)) == 0


@contextmanager
def _announced(state: State) -> Iterator["Announce"]:
    """The address in ``instance.json`` while the service runs; what was there before, after it."""
    announce = Announce(state)
    try:
        yield announce
    finally:
        with contextlib.suppress(Misconfigured):
            announce.withdraw()


class Announce:
    """Says where the decision service is."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._before = state.instance().decisions
        self._ours = ""

    def __call__(self, url: str) -> None:
        self._ours = url
        self._save(url)

    def withdraw(self) -> None:
        """Unless somebody else says so by now, the service is where it was before."""
        if self._ours and self._state.instance().decisions == self._ours:
            self._save(self._before)

    def _save(self, url: str) -> None:
        instance = self._state.instance()
        self._state.save_instance(msgspec.structs.replace(instance, decisions=url))


def _config(wanted: Wanted, state: State, *, own_writer: bool) -> ServiceConfig:
    host, port = _place(wanted.listen)
    return ServiceConfig(
        root=str(state.root),
        workers=wanted.workers,
        host=host,
        port=port,
        plain=wanted.plain_http,
        certificate=_path(wanted.certificate),
        key=_path(wanted.key),
        callers=_path(wanted.callers),
        names=wanted.names,
        base_url=_base_url(wanted.base_url),
        unix=str((wanted.unix or state.decision_socket).absolute()),
        access_log=wanted.access_log,
        durability=wanted.durability,
        own_writer=own_writer,
    )


def _place(listen: str) -> tuple[str, int]:
    host, colon, port = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise Misconfigured("--listen is HOST:PORT, as 127.0.0.1:8443 or [::1]:8443")
    return host, int(port)


def _base_url(base: str) -> str:
    try:
        return base and check_base_url(base)
    except NotABaseUrl as exc:
        raise Misconfigured(f"--base-url: {exc}") from None


def _path(path: Path | None) -> str:
    return "" if path is None else str(path.absolute())


def serve_plain(
    wanted: Wanted,
    policies: Path | None,
    entities: Path | None,
    services: Path | None,
    *,
    json: bool,
) -> int:
    """Serve a policy folder by itself."""
    from chartgate.cli import serving_plain as plain

    if policies is None:
        raise Misconfigured("--entities and --services go with --policies")
    if wanted.state is None:
        raise Misconfigured("name with --state a folder for the audit log and the keys")
    if not policies.is_dir():
        raise Misconfigured(f"--policies: there is no folder {policies}")
    for option, file in (("--entities", entities), ("--services", services)):
        if file is not None and not file.is_file():
            raise Misconfigured(f"{option}: there is no file {file}")
    state = State(wanted.state.absolute())
    screen.log_in_one_line()
    config = _config(wanted, state, own_writer=True)
    ca = plain.authority(config)

    def ready(url: str, token: Path | None) -> None:
        if json:
            facts = {"url": url, "unix": config.unix, "ca": ca, "token_file": token}
            told = {name: str(value) if value else None for name, value in facts.items()}
            sys.stdout.write(msgspec.json.encode(told).decode() + "\n")
            sys.stdout.flush()
        else:
            line = curl(url, ca, token or "TOKEN_FILE", _ANY_QUESTION)
            plain.show(url, config.unix, state, ca, token, line)

    with one_line_for_the_disk(state.root):
        plain.serve(config, plain.Files(policies, entities, services), on_ready=ready)
    if not json:
        screen.console().print("Stopped.")
    return 0


_ANY_QUESTION = (
    '{"subject":{"type":"TYPE","id":"ID"},"action":{"name":"NAME"},'
    '"resource":{"type":"TYPE","id":"ID"}}'
)
