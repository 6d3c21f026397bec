-- The event log of one service. Its table is the outbox: readers tail it, and the bus only makes them faster.

-- Heads: the current version of each stream, and the row that a writer locks. Locks are taken in stream_id order, so the order is bytewise.
CREATE TABLE event_stream (
    stream_id text COLLATE "C" NOT NULL,
    version integer NOT NULL,
    tx xid8 NOT NULL,
    CONSTRAINT event_stream_key PRIMARY KEY (stream_id),
    CONSTRAINT event_stream_version CHECK (version >= 0)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);

-- Order of reading is (tx, position). tx is the writing transaction, or that of an earlier event of the same stream where that is higher:
-- a transaction may have taken its id before the one whose state it read, and versions of a stream must be read in order.
CREATE TABLE event (
    position bigint GENERATED ALWAYS AS IDENTITY,
    tx xid8 NOT NULL,
    stream_id text COLLATE "C" NOT NULL,
    version integer NOT NULL,
    type text COLLATE "C" NOT NULL,
    payload bytea NOT NULL,
    metadata bytea NOT NULL,
    recorded_at timestamptz NOT NULL,
    CONSTRAINT event_log_order PRIMARY KEY (tx, position),
    CONSTRAINT event_version UNIQUE (stream_id, version),
    CONSTRAINT event_version_positive CHECK (version > 0)
);

REVOKE ALL ON event, event_stream FROM :"runtime_role";
GRANT SELECT, INSERT ON event TO :"runtime_role";
GRANT SELECT, INSERT, UPDATE ON event_stream TO :"runtime_role";

CREATE FUNCTION event_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'events are never changed: % on % refused', TG_OP, TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END
$$;

CREATE TRIGGER event_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON event
    FOR EACH STATEMENT EXECUTE FUNCTION event_refuse_change();

-- Lock the heads of these streams and return their versions, 0 for unknown ones, in the order given, which must be ascending without
-- repetition. Unknown streams are created at version 0, so that they are locked too. For callers that decide again under the lock.
CREATE FUNCTION event_lock(p_streams text[]) RETURNS integer[] LANGUAGE plpgsql AS $$
DECLARE
    v_heads integer[];
BEGIN
    INSERT INTO event_stream (stream_id, version, tx)
    SELECT u.stream_id, 0, pg_current_xact_id() FROM unnest(p_streams) AS u (stream_id)
    ON CONFLICT DO NOTHING;
    SELECT array_agg(l.version ORDER BY l.stream_id) INTO v_heads
    FROM (
        SELECT s.stream_id, s.version FROM event_stream s WHERE s.stream_id = ANY (p_streams)
        ORDER BY s.stream_id FOR NO KEY UPDATE
    ) l;
    RETURN v_heads;
END
$$;

-- Append a batch of commits in one round trip.
--   p_streams            streams of the batch: first p_fresh ones that the batch expects not to exist, then the others; each part ascending
--   p_final              version of each stream if every commit succeeds
--   p_row_*              one row per (commit, stream): ordinal of the commit, index in p_streams, expected version, number of events
--   p_event_*            one per event, in order: index of its row, and what is recorded
-- Returns the log order's tx, the transaction's own id, the positions of the recorded events in order, and per row the head that a
-- refused commit met (null for recorded ones). A commit with any stale row contributes nothing; later commits see the earlier ones.
CREATE FUNCTION event_append(
    p_streams text[], p_fresh integer, p_final integer[],
    p_row_commit integer[], p_row_stream integer[], p_row_expected integer[], p_row_count integer[],
    p_event_row integer[], p_event_stream text[], p_event_version integer[],
    p_event_type text[], p_event_payload bytea[], p_event_metadata bytea[],
    OUT tx xid8, OUT own_tx xid8, OUT positions bigint[], OUT met integer[], OUT refused integer
) LANGUAGE plpgsql AS $$
DECLARE
    v_streams integer := cardinality(p_streams);
    v_rows integer := cardinality(p_row_commit);
    v_heads integer[] := '{}';
    v_inserted text[] := '{}';
    v_wanted text[];
    v_locked text[];
    v_versions integer[];
    v_accepted boolean[] := array_fill(true, ARRAY[v_rows]);
    v_row integer := 1;
    v_first integer;
    v_stale boolean;
BEGIN
    own_tx := pg_current_xact_id();
    tx := own_tx;
    met := array_fill(NULL::integer, ARRAY[v_rows]);
    refused := 0;

    -- Fresh heads are written at the version they will have if all goes well, which saves an update per new stream.
    IF p_fresh > 0 THEN
        WITH inserted AS (
            INSERT INTO event_stream (stream_id, version, tx)
            SELECT u.stream_id, u.version, own_tx FROM unnest(p_streams[:p_fresh], p_final[:p_fresh]) AS u (stream_id, version)
            ON CONFLICT DO NOTHING RETURNING event_stream.stream_id
        )
        SELECT coalesce(array_agg(i.stream_id), '{}') INTO v_inserted FROM inserted i;
        v_heads := array_fill(0, ARRAY[p_fresh]);
    END IF;

    -- Existing heads are locked in one pass in ascending order; a fresh one that turned out to exist is among them.
    IF cardinality(v_inserted) < v_streams THEN
        v_wanted := CASE WHEN cardinality(v_inserted) = p_fresh THEN p_streams[p_fresh + 1:] ELSE p_streams END;
        SELECT coalesce(array_agg(l.stream_id), '{}'), array_agg(l.version), greatest(own_tx, max(l.tx)) INTO v_locked, v_versions, tx
        FROM (
            SELECT s.stream_id, s.version, s.tx FROM event_stream s
            WHERE s.stream_id = ANY (v_wanted) AND (cardinality(v_inserted) = p_fresh OR s.stream_id <> ALL (v_inserted))
            ORDER BY s.stream_id FOR NO KEY UPDATE
        ) l;
        IF cardinality(v_inserted) = p_fresh AND cardinality(v_locked) = v_streams - p_fresh THEN
            v_heads := v_heads || v_versions;
        ELSE
            SELECT array_agg(coalesce(l.version, 0) ORDER BY u.slot) INTO v_heads
            FROM unnest(p_streams) WITH ORDINALITY AS u (stream_id, slot)
            LEFT JOIN unnest(v_locked, v_versions) AS l (stream_id, version) USING (stream_id);
        END IF;
    END IF;

    WHILE v_row <= v_rows LOOP
        v_first := v_row;
        v_stale := false;
        LOOP
            IF v_heads[p_row_stream[v_row]] <> p_row_expected[v_row] THEN
                v_stale := true;
            END IF;
            v_row := v_row + 1;
            EXIT WHEN v_row > v_rows OR p_row_commit[v_row] <> p_row_commit[v_first];
        END LOOP;
        FOR r IN v_first .. v_row - 1 LOOP
            IF v_stale THEN
                met[r] := v_heads[p_row_stream[r]];
                v_accepted[r] := false;
                refused := refused + 1;
            ELSE
                v_heads[p_row_stream[r]] := p_row_expected[r] + p_row_count[r];
            END IF;
        END LOOP;
    END LOOP;

    WITH recorded AS (
        INSERT INTO event (tx, stream_id, version, type, payload, metadata, recorded_at)
        SELECT event_append.tx, e.stream_id, e.version, e.type, e.payload, e.metadata, clock_timestamp()
        FROM unnest(p_event_row, p_event_stream, p_event_version, p_event_type, p_event_payload, p_event_metadata)
            WITH ORDINALITY AS e (row, stream_id, version, type, payload, metadata, n)
        WHERE refused = 0 OR v_accepted[e.row]
        ORDER BY e.n
        RETURNING event.position
    )
    SELECT coalesce(array_agg(r.position), '{}') INTO positions FROM recorded r;

    IF refused > 0 OR cardinality(v_inserted) < v_streams OR tx <> own_tx THEN
        UPDATE event_stream s SET version = u.version, tx = event_append.tx
        FROM unnest(p_streams, v_heads) AS u (stream_id, version)
        WHERE s.stream_id = u.stream_id AND (s.version <> u.version OR s.tx < event_append.tx);
    END IF;
END
$$;

-- Append to streams whose writers exclude each other by a lock of the service's own, which the caller holds: one pass over the heads and one
-- over the events, without looking at anything twice.
--   p_streams, p_expected, p_count   streams, each once, with the version before and the number of events; 0 expected means a new stream
--   p_event_*                        one per event, in order, versions counting on from those expected
--   p_payloads                       the payloads one after the other; p_event_start (from 1) and p_event_length cut them apart
-- Returns the log order's tx, the transaction's own id and the position of the last event. A head that is not where its writer expects it
-- fails the statement with serialization_failure.
CREATE FUNCTION event_extend(
    p_streams text[], p_expected integer[], p_count integer[],
    p_event_stream text[], p_event_version integer[], p_event_type text[],
    p_payloads bytea, p_event_start integer[], p_event_length integer[],
    OUT tx xid8, OUT own_tx xid8, OUT last_position bigint
) LANGUAGE plpgsql AS $$
DECLARE
    v_moved integer;
    v_created integer;
BEGIN
    own_tx := pg_current_xact_id();
    WITH moved AS (
        UPDATE event_stream s SET version = s.version + u.count, tx = greatest(s.tx, event_extend.own_tx)
        FROM unnest(p_streams, p_expected, p_count) AS u (stream_id, expected, count)
        WHERE s.stream_id = u.stream_id AND s.version = u.expected
        RETURNING s.tx
    )
    SELECT count(*), greatest(event_extend.own_tx, max(m.tx)) INTO v_moved, tx FROM moved m;
    IF v_moved < cardinality(p_streams) THEN
        INSERT INTO event_stream (stream_id, version, tx)
        SELECT u.stream_id, u.count, event_extend.tx
        FROM unnest(p_streams, p_expected, p_count) AS u (stream_id, expected, count) WHERE u.expected = 0
        ON CONFLICT DO NOTHING;
        GET DIAGNOSTICS v_created = ROW_COUNT;
        IF v_moved + v_created <> cardinality(p_streams) THEN
            RAISE EXCEPTION 'the head of a stream is not where its writer expects it' USING ERRCODE = 'serialization_failure';
        END IF;
    END IF;
    IF tx <> own_tx THEN
        UPDATE event_stream s SET tx = event_extend.tx WHERE s.stream_id = ANY (p_streams) AND s.tx < event_extend.tx;
    END IF;

    WITH recorded AS (
        INSERT INTO event (tx, stream_id, version, type, payload, metadata, recorded_at)
        SELECT event_extend.tx, e.stream_id, e.version, e.type, substr(p_payloads, e.start, e.length), '', clock_timestamp()
        FROM unnest(p_event_stream, p_event_version, p_event_type, p_event_start, p_event_length) AS e (stream_id, version, type, start, length)
        RETURNING event.position
    )
    SELECT max(r.position) INTO last_position FROM recorded r;
END
$$;

-- Nested loops over the key whatever the statistics say: a plan cached while the table was small must not scan it when it is large.
ALTER FUNCTION event_append SET enable_hashjoin = off;
ALTER FUNCTION event_append SET enable_mergejoin = off;
ALTER FUNCTION event_append SET enable_seqscan = off;
ALTER FUNCTION event_lock SET enable_seqscan = off;
ALTER FUNCTION event_extend SET enable_hashjoin = off;
ALTER FUNCTION event_extend SET enable_mergejoin = off;
ALTER FUNCTION event_extend SET enable_seqscan = off;
