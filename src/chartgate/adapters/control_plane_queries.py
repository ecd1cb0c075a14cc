"""What a node asks the control plane's tables, and where it hears of changes.

The rule kept: what has ended is not read. Everything about a person comes as one row, packed by the
server: so a node reads millions of assignments in seconds.
"""

from typing import Final

CHANNEL: Final = "chartgate"
"""Each change is notified there, by the tables themselves (``control_plane_schema``)."""

EPOCH: Final = "SELECT value::bigint FROM state WHERE key = 'epoch'"
HEAD: Final = """
    SELECT reached, (SELECT mark::text FROM change WHERE epoch = reached LIMIT 1)
    FROM (SELECT value::bigint AS reached FROM state WHERE key = 'epoch') AS now"""
"""The epoch, and the mark of the change that made it: what two histories of one number differ in."""
CHANGES: Final = """
    SELECT epoch, kind, key, mark::text FROM change
    WHERE epoch BETWEEN %s AND %s ORDER BY epoch LIMIT 20001"""
ROLES: Final = "SELECT name, title, default_purpose, purposes, parents FROM role ORDER BY name"

_PERSON: Final = """
    SELECT p.uid, p.name, p.full_name, p.active, p.scram_verifier,
           timestamptz_send(p.credential_until), a.times, a.words
    FROM person p LEFT JOIN ("""
_PACKED: Final = """
        SELECT person_uid,
               string_agg(int8send(id) || timestamptz_send(valid_from)
                   || timestamptz_send(coalesce(valid_until, 'infinity')), '') AS times,
               string_agg(role || coalesce(E'\\x1f' || department, '')
                   || coalesce(E'\\x1d' || reference, '')
                   || coalesce(E'\\x1c' || patient, ''), E'\\x1e') AS words
        FROM assignment"""
PEOPLE: Final = f"{_PERSON}{_PACKED} GROUP BY person_uid) a ON a.person_uid = p.uid"
"""Everybody, one row each; the assignments packed by the server, in no order."""
SOME_PEOPLE: Final = (
    f"{_PERSON}{_PACKED} WHERE person_uid = ANY(%s) GROUP BY person_uid) a "
    "ON a.person_uid = p.uid WHERE p.uid = ANY(%s)"
)
GRANTS: Final = """
    SELECT id, person_uid, policy, valid_until, entry, proof FROM "grant"
    WHERE revoked_at IS NULL AND valid_until > now()"""
SERVICES: Final = """
    SELECT uid, name, active, scope::text FROM service ORDER BY uid"""
TOKENS: Final = """
    SELECT id, service_uid, digest, valid_until FROM service_token
    WHERE revoked_at IS NULL AND valid_until > now()"""
CERTIFICATES: Final = """
    SELECT service_uid, fingerprint, subject FROM service_certificate
    WHERE revoked_at IS NULL"""
