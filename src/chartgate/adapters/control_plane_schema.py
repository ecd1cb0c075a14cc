"""The control plane's tables, as numbered steps that only ever grow.

Rules kept: every change, whoever makes it and with whatever program, raises the epoch and notifies
in the transaction that makes it (triggers), so a node that compares epochs cannot miss one; a
person's row is never deleted and her uid never changes, since the audit log cites it for years
(45 CFR 164.312(a)(2)(i): unique user identification).
"""

from typing import Final, LiteralString

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
    # 4: what changed at which epoch, so that a node reads that and nothing else; grants with what
    # shows that their approval is in the audit log; applications with accounts of their own.
    # An epoch has a mark that no other history of the same tables has (a backup that was restored).
    # Names have no control characters: nodes read them packed.
    """
    CREATE TABLE change (
        epoch bigint NOT NULL,
        kind text NOT NULL,
        key text NOT NULL,
        mark uuid NOT NULL
    );
    CREATE INDEX change_epoch ON change (epoch);

    ALTER TABLE assignment ADD CONSTRAINT assignment_plain_text CHECK (
        role || coalesce(department, '') || coalesce(reference, '') || coalesce(patient, '')
        !~ '[[:cntrl:]]'
    );

    ALTER TABLE "grant"
        ADD COLUMN entry bytea,
        ADD COLUMN proof text,
        ADD COLUMN revoked_at timestamptz;

    CREATE TABLE service (
        uid text PRIMARY KEY CHECK (uid ~ '^s_[0-9a-f]{16}$'),
        name text NOT NULL UNIQUE CHECK (name ~ '^[a-z_][a-z0-9_.-]{0,62}$'),
        title text NOT NULL DEFAULT '',
        active boolean NOT NULL DEFAULT true,
        scope jsonb NOT NULL CHECK (jsonb_typeof(scope) = 'object'),
        created_at timestamptz NOT NULL DEFAULT now()
    );

    CREATE TABLE service_token (
        id text PRIMARY KEY CHECK (id ~ '^[0-9a-f]{8}$'),
        service_uid text NOT NULL REFERENCES service,
        digest bytea NOT NULL UNIQUE CHECK (octet_length(digest) = 32),
        created_at timestamptz NOT NULL DEFAULT now(),
        valid_until timestamptz NOT NULL,
        revoked_at timestamptz
    );
    CREATE INDEX service_token_service ON service_token (service_uid);

    CREATE TABLE service_certificate (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        service_uid text NOT NULL REFERENCES service,
        fingerprint text CHECK (fingerprint ~ '^[0-9a-f]{64}$'),
        subject text CHECK (subject <> ''),
        created_at timestamptz NOT NULL DEFAULT now(),
        revoked_at timestamptz,
        CHECK ((fingerprint IS NULL) <> (subject IS NULL))
    );
    CREATE UNIQUE INDEX service_certificate_fingerprint
        ON service_certificate (fingerprint) WHERE revoked_at IS NULL;
    CREATE UNIQUE INDEX service_certificate_subject
        ON service_certificate (subject) WHERE revoked_at IS NULL;

    CREATE FUNCTION two_tokens() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM 1 FROM service WHERE uid = NEW.service_uid FOR UPDATE;
        IF (SELECT count(*) FROM service_token WHERE service_uid = NEW.service_uid
                AND revoked_at IS NULL AND valid_until > now()) > 2 THEN
            RAISE EXCEPTION 'a service has at most two valid tokens'
                USING ERRCODE = 'check_violation', CONSTRAINT = 'service_token_two';
        END IF;
        RETURN NULL;
    END $$;

    CREATE TRIGGER two_tokens AFTER INSERT OR UPDATE ON service_token
        FOR EACH ROW EXECUTE FUNCTION two_tokens();

    CREATE FUNCTION keep_ended() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'UPDATE' THEN
            -- an end, once; nothing else of it ever changes
            IF OLD.revoked_at IS NULL
                AND to_jsonb(NEW) - 'revoked_at' = to_jsonb(OLD) - 'revoked_at' THEN
                RETURN NEW;
            END IF;
        END IF;
        RAISE EXCEPTION 'what was given is ended, never changed or removed'
            USING ERRCODE = 'restrict_violation';
    END $$;

    CREATE TRIGGER keep_ended BEFORE UPDATE OR DELETE ON "grant"
        FOR EACH ROW EXECUTE FUNCTION keep_ended();
    CREATE TRIGGER keep_all_ended BEFORE TRUNCATE ON "grant"
        FOR EACH STATEMENT EXECUTE FUNCTION keep_ended();
    CREATE TRIGGER keep_ended BEFORE UPDATE OR DELETE ON service_token
        FOR EACH ROW EXECUTE FUNCTION keep_ended();
    CREATE TRIGGER keep_all_ended BEFORE TRUNCATE ON service_token
        FOR EACH STATEMENT EXECUTE FUNCTION keep_ended();
    CREATE TRIGGER keep_ended BEFORE UPDATE OR DELETE ON service_certificate
        FOR EACH ROW EXECUTE FUNCTION keep_ended();
    CREATE TRIGGER keep_all_ended BEFORE TRUNCATE ON service_certificate
        FOR EACH STATEMENT EXECUTE FUNCTION keep_ended();

    CREATE FUNCTION keep_service() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'UPDATE' THEN
            IF NEW.uid = OLD.uid THEN
                RETURN NEW;
            END IF;
        END IF;
        RAISE EXCEPTION 'a service is deactivated, never removed or renumbered'
            USING ERRCODE = 'restrict_violation';
    END $$;

    CREATE TRIGGER keep_service BEFORE UPDATE OR DELETE ON service
        FOR EACH ROW EXECUTE FUNCTION keep_service();
    CREATE TRIGGER keep_services BEFORE TRUNCATE ON service
        FOR EACH STATEMENT EXECUTE FUNCTION keep_service();

    DROP TRIGGER changed ON person;
    DROP TRIGGER changed ON role;
    DROP TRIGGER changed ON assignment;
    DROP TRIGGER changed ON "grant";
    DROP TRIGGER changed ON policy_step;

    -- Arguments: what kind of thing changed, and the column that says which. More than 10,000 at
    -- once are one change of everything.
    CREATE OR REPLACE FUNCTION changed() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        reached bigint;
        keys text[];
        what text := TG_ARGV[0];
    BEGIN
        IF TG_OP = 'TRUNCATE' THEN
            what := 'all';
            keys := ARRAY[''];
        ELSE
            EXECUTE format(
                CASE TG_OP
                    WHEN 'INSERT' THEN
                        'SELECT ARRAY(SELECT DISTINCT %1$I::text FROM fresh LIMIT 10001)'
                    WHEN 'DELETE' THEN
                        'SELECT ARRAY(SELECT DISTINCT %1$I::text FROM stale LIMIT 10001)'
                    ELSE
                        'SELECT ARRAY(SELECT %1$I::text FROM fresh UNION '
                        'SELECT %1$I::text FROM stale LIMIT 10001)'
                END,
                TG_ARGV[1]
            ) INTO keys;
            IF cardinality(keys) = 0 THEN
                RETURN NULL;
            END IF;
            IF cardinality(keys) > 10000 THEN
                what := 'all';
                keys := ARRAY[''];
            END IF;
        END IF;
        UPDATE state SET value = (value::bigint + 1)::text WHERE key = 'epoch'
            RETURNING value::bigint INTO reached;
        INSERT INTO change
            SELECT reached, what, key, made.mark
            FROM unnest(keys) AS key, (SELECT gen_random_uuid() AS mark OFFSET 0) AS made;
        IF reached % 256 = 0 THEN
            DELETE FROM change WHERE epoch < reached - 16384;
        END IF;
        PERFORM pg_notify('chartgate', TG_TABLE_NAME || ' ' || reached);
        RETURN NULL;
    END $$;

    DO $$
    DECLARE
        watched record;
    BEGIN
        FOR watched IN
            SELECT * FROM (VALUES
                ('person', 'person', 'uid'),
                ('assignment', 'person', 'person_uid'),
                ('role', 'role', 'name'),
                ('grant', 'grant', 'id'),
                ('policy_step', 'policy', 'subject'),
                ('service', 'service', 'uid'),
                ('service_token', 'service', 'service_uid'),
                ('service_certificate', 'service', 'service_uid')
            ) AS listed (name, kind, key_column)
        LOOP
            EXECUTE format(
                'CREATE TRIGGER changed_insert AFTER INSERT ON %I '
                'REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION changed(%L, %L)',
                watched.name, watched.kind, watched.key_column);
            EXECUTE format(
                'CREATE TRIGGER changed_update AFTER UPDATE ON %I '
                'REFERENCING NEW TABLE AS fresh OLD TABLE AS stale '
                'FOR EACH STATEMENT EXECUTE FUNCTION changed(%L, %L)',
                watched.name, watched.kind, watched.key_column);
            EXECUTE format(
                'CREATE TRIGGER changed_delete AFTER DELETE ON %I '
                'REFERENCING OLD TABLE AS stale FOR EACH STATEMENT EXECUTE FUNCTION changed(%L, %L)',
                watched.name, watched.kind, watched.key_column);
            EXECUTE format(
                'CREATE TRIGGER changed_truncate AFTER TRUNCATE ON %I '
                'FOR EACH STATEMENT EXECUTE FUNCTION changed(%L, %L)',
                watched.name, watched.kind, watched.key_column);
        END LOOP;
    END $$;
    """,
)
