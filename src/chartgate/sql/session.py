"""Transactions, settings and purpose: statements about the session, written out again by us.

Rule kept: no statement can unpin what the upstream session relies on (``allow.SETTINGS``), and no
transaction is weaker than REPEATABLE READ, so that a companion query and its statement see the
same rows.
"""

from collections.abc import Iterable
from typing import Final

from postgast import pg_query_pb2 as pb

from chartgate.errors import Refused
from chartgate.sql.admit import NotAllowed
from chartgate.sql.allow import SETTINGS
from chartgate.sql.seeking import constant_text
from chartgate.sql.statement import SetPurpose, Setting, ShowPurpose, Transaction
from chartgate.sql.tree import HIDDEN, literal, quoted

PURPOSE: Final = "chartgate.purpose"

_VERBS: Final = {
    pb.TRANS_STMT_BEGIN: "begin",
    pb.TRANS_STMT_START: "begin",
    pb.TRANS_STMT_COMMIT: "commit",
    pb.TRANS_STMT_ROLLBACK: "rollback",
    pb.TRANS_STMT_SAVEPOINT: "savepoint",
    pb.TRANS_STMT_RELEASE: "release",
    pb.TRANS_STMT_ROLLBACK_TO: "rollback to",
}
_LEVELS: Final = {
    "read uncommitted": "REPEATABLE READ",
    "read committed": "REPEATABLE READ",
    "repeatable read": "REPEATABLE READ",
    "serializable": "SERIALIZABLE",
}


def transaction(stmt: pb.TransactionStmt) -> Transaction:
    """BEGIN, COMMIT, ROLLBACK and savepoints; two-phase commit is refused."""
    verb = _VERBS.get(stmt.kind)
    if verb is None:
        raise NotAllowed("two-phase commit is not allowed")
    if verb == "begin":
        return Transaction(verb, f"BEGIN {_modes(stmt.options, isolation='REPEATABLE READ')}")
    if verb in ("commit", "rollback"):
        return Transaction(verb, verb.upper() + (" AND CHAIN" if stmt.chain else ""))
    if stmt.savepoint_name.lower().startswith(HIDDEN):
        raise NotAllowed(f"names that begin with {HIDDEN} are kept for the gateway")
    word = {"savepoint": "SAVEPOINT", "release": "RELEASE", "rollback to": "ROLLBACK TO"}[verb]
    return Transaction(verb, f"{word} {quoted(stmt.savepoint_name)}")


def _modes(options: Iterable[pb.Node], *, isolation: str) -> str:
    """Transaction modes; a weaker isolation is raised. ``isolation`` is for when none is asked."""
    modes = []
    for node in options:
        element = node.def_elem
        value = constant_text(element.arg.a_const)
        match element.defname:
            case "transaction_isolation":
                isolation = _LEVELS.get(value or "", "REPEATABLE READ")
            case "transaction_read_only":
                modes.append("READ ONLY" if value == "1" else "READ WRITE")
            case "transaction_deferrable":
                modes.append("DEFERRABLE" if value == "1" else "NOT DEFERRABLE")
            case _:
                raise NotAllowed("this transaction mode is not allowed")
    if isolation:
        modes.insert(0, f"ISOLATION LEVEL {isolation}")
    return ", ".join(modes)


def set_variable(stmt: pb.VariableSetStmt) -> Setting | SetPurpose:
    """SET and RESET of listed settings; the purpose is the gateway's own."""
    if stmt.kind == pb.VAR_RESET_ALL:
        return Setting("all", "RESET ALL", verb="reset")
    if stmt.kind == pb.VAR_SET_MULTI:
        return _characteristics(stmt)
    name = stmt.name.lower()
    back = stmt.kind in (pb.VAR_RESET, pb.VAR_SET_DEFAULT)
    if name == PURPOSE:
        if stmt.is_local:
            raise Refused(f"SET LOCAL {PURPOSE}: a purpose is claimed for the session")
        return SetPurpose("" if back else _value(stmt))
    rule = SETTINGS.get(name)
    if rule is None or stmt.kind == pb.VAR_SET_CURRENT:
        raise _unlisted("SET", name)
    if not rule.settable:
        raise NotAllowed(f"SET {name}: this setting can only be shown")
    local = "LOCAL " if stmt.is_local else ""
    if back:
        return Setting(name, f"SET {local}{name} TO DEFAULT", "reset", None, rule.virtual)
    value = ", ".join(_values(stmt)) if name in ("search_path", "datestyle") else _value(stmt)
    if not rule.admits(value):
        raise NotAllowed(f"SET {name}: this value is not allowed")
    return Setting(name, f"SET {local}{name} TO {literal(value)}", "set", value, rule.virtual)


def _characteristics(stmt: pb.VariableSetStmt) -> Setting:
    scope = stmt.name.upper()
    if scope == "TRANSACTION":
        return Setting("transaction", f"SET TRANSACTION {_modes(stmt.args, isolation='')}")
    if scope == "SESSION CHARACTERISTICS":
        modes = _modes(stmt.args, isolation="")
        return Setting("transaction", f"SET SESSION CHARACTERISTICS AS TRANSACTION {modes}")
    raise NotAllowed("this form of SET is not allowed")


def _values(stmt: pb.VariableSetStmt) -> list[str]:
    values = []
    for node in stmt.args:
        text = constant_text(node.a_const) if node.WhichOneof("node") == "a_const" else None
        if text is None:
            raise NotAllowed("SET to something that is no constant")
        values.append(text)
    return values


def _value(stmt: pb.VariableSetStmt) -> str:
    values = _values(stmt)
    if len(values) != 1:
        raise NotAllowed("SET to more than one value")
    return values[0]


def show_variable(stmt: pb.VariableShowStmt) -> Setting | ShowPurpose:
    """SHOW of a listed setting."""
    name = stmt.name.lower()
    if name == PURPOSE:
        return ShowPurpose()
    rule = SETTINGS.get(name)
    if rule is None:
        raise _unlisted("SHOW", name)
    return Setting(name, f"SHOW {name}", "show", None, rule.virtual)


def discard(stmt: pb.DiscardStmt) -> Setting:
    """DISCARD ALL and PLANS; there are no sequences or temporary tables to discard."""
    if stmt.target == pb.DISCARD_ALL:
        return Setting("all", "DISCARD ALL", verb="discard")
    if stmt.target == pb.DISCARD_PLANS:
        return Setting("plans", "DISCARD PLANS", verb="discard")
    raise NotAllowed("DISCARD of sequences or temporary tables is not allowed")


def housekeeping(node: pb.Node) -> str:
    """DEALLOCATE, CLOSE ALL and ``UNLISTEN *``: what drivers send to tidy up."""
    match node.WhichOneof("node"):
        case "deallocate_stmt":
            name = node.deallocate_stmt.name
            if node.deallocate_stmt.isall or not name:
                return "DEALLOCATE ALL"
            if name.lower().startswith(HIDDEN):
                raise NotAllowed(f"names that begin with {HIDDEN} are kept for the gateway")
            return f"DEALLOCATE {quoted(name)}"
        case "close_portal_stmt":
            if node.close_portal_stmt.portalname:
                raise NotAllowed("CLOSE of a cursor is not allowed")
            return "CLOSE ALL"
        case _:
            if node.unlisten_stmt.conditionname:
                raise NotAllowed("UNLISTEN of a channel is not allowed")
            return "UNLISTEN *"


def _unlisted(verb: str, name: str) -> NotAllowed:
    """Names the setting to whoever wrote it; the log has no names that somebody made up."""
    shown = name[:64] if name.replace(".", "_").isidentifier() else "of that name"
    return NotAllowed(
        f"{verb} {shown} is not allowed: the setting is not on the list",
        recorded=f"{verb} of a setting that is not on the list",
    )
