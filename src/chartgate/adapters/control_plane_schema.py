"""The control plane's tables, as numbered steps that only ever grow.

Rules kept: every change, whoever makes it and with whatever program, raises the epoch and notifies
in the transaction that makes it (triggers), so a node that compares epochs cannot miss one; a
person's row is never deleted and her uid never changes, since the audit log cites it for years
(45 CFR 164.312(a)(2)(i): unique user identification).
"""

from typing import Final, LiteralString

CHANNEL: Final = "chartgate"

MIGRATIONS: Final[tuple[LiteralString, ...]] = (
    # 1
    """
    CREATE TABLE state (
        key text PRIMARY KEY,
        value text NOT NULL
    );
    INSERT INTO state VALUES ('epoch', '0');

    CREATE TABLE person (
        uid text PRIMARY KEY CHECK (uid ~ '^p_[0-9a-f]{16}$'),
        name text NOT NULL UNIQUE CHECK (name ~ '^[a-z_][a-z0-9_.-]{0,62}$'),
        full_name text NOT NULL,
        active boolean NOT NULL DEFAULT true,
        scram_verifier text,
        credential_until timestamptz,
        created_at timestamptz NOT NULL DEFAULT now(),
        CHECK ((scram_verifier IS NULL) = (credential_until IS NULL))
    );

    CREATE TABLE role (
        name text PRIMARY KEY,
        title text NOT NULL,
        default_purpose text,
        purposes text[] NOT NULL DEFAULT '{}',
        parents text[] NOT NULL DEFAULT '{}'
    );

    CREATE TABLE assignment (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        person_uid text NOT NULL REFERENCES person,
        role text NOT NULL REFERENCES role,
        department text,
        valid_from timestamptz NOT NULL,
        valid_until timestamptz,
        reference text,
        CHECK (valid_until IS NULL OR valid_until >= valid_from)
    );
    CREATE INDEX assignment_person ON assignment (person_uid);

    CREATE TABLE "grant" (
        id text PRIMARY KEY,
        person_uid text NOT NULL REFERENCES person,
        policy text NOT NULL,
        valid_from timestamptz NOT NULL,
        valid_until timestamptz NOT NULL,
        approved_by text NOT NULL REFERENCES person,
        reason text NOT NULL,
        CHECK (valid_until > valid_from),
        CHECK (approved_by <> person_uid)
    );
    CREATE INDEX grant_person ON "grant" (person_uid);

    CREATE FUNCTION changed() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        UPDATE state SET value = (value::bigint + 1)::text WHERE key = 'epoch';
        PERFORM pg_notify('chartgate', TG_TABLE_NAME);
        RETURN NULL;
    END $$;

    CREATE FUNCTION keep_person() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'UPDATE' THEN
            IF NEW.uid = OLD.uid THEN
                RETURN NEW;
            END IF;
        END IF;
        RAISE EXCEPTION 'a person is deactivated, never removed or renumbered'
            USING ERRCODE = 'restrict_violation';
    END $$;

    CREATE TRIGGER keep_person BEFORE UPDATE OR DELETE ON person
        FOR EACH ROW EXECUTE FUNCTION keep_person();
    CREATE TRIGGER keep_persons BEFORE TRUNCATE ON person
        FOR EACH STATEMENT EXECUTE FUNCTION keep_person();
    CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON person
        FOR EACH STATEMENT EXECUTE FUNCTION changed();
    CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON role
        FOR EACH STATEMENT EXECUTE FUNCTION changed();
    CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON assignment
        FOR EACH STATEMENT EXECUTE FUNCTION changed();
    CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON "grant"
        FOR EACH STATEMENT EXECUTE FUNCTION changed();
    """,
    # 2: whose record an assignment is about, as the source keys patients; never a name
    """
    ALTER TABLE assignment ADD COLUMN patient text CHECK (patient <> '');
    """,
    # 3: versions of policies and data maps, with what shows that each step is in the audit log.
    # Kept for good, which is at least six years past their last use (45 CFR 164.316(b)(2)(i)).
    # A notification carries the epoch that its change made, so one that no change made is noticed.
    """
    CREATE TABLE policy_bundle (
        subject text NOT NULL CHECK (subject ~ '^(policies|map:.+)$'),
        hash text NOT NULL CHECK (hash ~ '^[0-9a-f]{64}$'),
        content bytea NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (subject, hash)
    );

    CREATE TABLE policy_step (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        subject text NOT NULL,
        hash text NOT NULL,
        step text NOT NULL,
        generation bigint NOT NULL DEFAULT 0,
        entry bytea NOT NULL,
        proof text NOT NULL,
        report bytea,
        created_at timestamptz NOT NULL DEFAULT now(),
        FOREIGN KEY (subject, hash) REFERENCES policy_bundle
    );
    CREATE INDEX policy_step_generation ON policy_step (subject, generation) WHERE generation > 0;

    CREATE TABLE policy_node (
        node text NOT NULL,
        subject text NOT NULL,
        hash text NOT NULL,
        generation bigint NOT NULL,
        since timestamptz NOT NULL,
        PRIMARY KEY (node, subject)
    );

    CREATE FUNCTION keep_policy() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'versions and their steps are kept, never changed or removed'
            USING ERRCODE = 'restrict_violation';
    END $$;

    CREATE TRIGGER keep_policy BEFORE UPDATE OR DELETE ON policy_bundle
        FOR EACH ROW EXECUTE FUNCTION keep_policy();
    CREATE TRIGGER keep_policies BEFORE TRUNCATE ON policy_bundle
        FOR EACH STATEMENT EXECUTE FUNCTION keep_policy();
    CREATE TRIGGER keep_policy BEFORE UPDATE OR DELETE ON policy_step
        FOR EACH ROW EXECUTE FUNCTION keep_policy();
    CREATE TRIGGER keep_policies BEFORE TRUNCATE ON policy_step
        FOR EACH STATEMENT EXECUTE FUNCTION keep_policy();

    CREATE OR REPLACE FUNCTION changed() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        epoch text;
    BEGIN
        UPDATE state SET value = (value::bigint + 1)::text WHERE key = 'epoch'
            RETURNING value INTO epoch;
        PERFORM pg_notify('chartgate', TG_TABLE_NAME || ' ' || epoch);
        RETURN NULL;
    END $$;

    CREATE TRIGGER changed AFTER INSERT ON policy_step
        FOR EACH STATEMENT EXECUTE FUNCTION changed();
    """,
)

EPOCH: Final = "SELECT value::bigint FROM state WHERE key = 'epoch'"
ROLES: Final = "SELECT name, title, default_purpose, purposes, parents FROM role ORDER BY name"
PERSONS: Final = """
    SELECT uid, name, full_name, active, scram_verifier, credential_until
    FROM person ORDER BY uid"""
ASSIGNMENTS: Final = """
    SELECT person_uid, role, department, valid_from, valid_until, reference, patient
    FROM assignment ORDER BY person_uid, id"""
