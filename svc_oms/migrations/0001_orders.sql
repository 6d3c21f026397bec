-- Read models of orders, written in the transaction of the events that they follow from, so that a reader sees its own writes.
-- All of it can be folded again from the log.

-- An order as it stands. `snapshot` is the serialized trademesh.oms.v1.Order; the columns are what lists and kill switches select by.
-- Few and narrow indexes: each costs every order its write. `open` changes once in an order's life, so most updates touch no index.
CREATE TABLE orders (
    order_id text COLLATE "C" NOT NULL,
    sequence bigint GENERATED ALWAYS AS IDENTITY,
    account_id text COLLATE "C" NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    principal text COLLATE "C" NOT NULL,
    instrument_id text COLLATE "C" NOT NULL,
    venue text COLLATE "C" NOT NULL,
    side smallint NOT NULL,
    state smallint NOT NULL,
    open boolean NOT NULL,
    version integer NOT NULL,
    snapshot bytea NOT NULL,
    CONSTRAINT orders_key PRIMARY KEY (order_id)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
-- Serves the lists of an account's open orders, in two halves that of all, and what looks through the open orders of all accounts.
CREATE INDEX orders_of_account ON orders (open, account_id, sequence);

-- Fills, busts and corrections. The key is what counts each of them once, whichever session brought it.
CREATE TABLE execution (
    venue text COLLATE "C" NOT NULL,
    trade_date text COLLATE "C" NOT NULL,
    exec_id text COLLATE "C" NOT NULL,
    sequence bigint GENERATED ALWAYS AS IDENTITY,
    order_id text COLLATE "C" NOT NULL,
    account_id text COLLATE "C" NOT NULL,
    instrument_id text COLLATE "C" NOT NULL,
    payload bytea NOT NULL,
    CONSTRAINT execution_once PRIMARY KEY (venue, trade_date, exec_id)
);
CREATE INDEX execution_of_account ON execution (account_id, sequence);
CREATE INDEX execution_of_order ON execution (order_id, sequence);

-- Requests that wait to be sent, or for the venue's answer. The queue of the router, and what its clocks watch.
CREATE TABLE venue_request (
    venue_client_order_id text COLLATE "C" NOT NULL,
    number bigint GENERATED ALWAYS AS IDENTITY,
    venue text COLLATE "C" NOT NULL,
    order_id text COLLATE "C" NOT NULL,
    action smallint NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    sent_at timestamptz,
    overdue boolean NOT NULL DEFAULT false,
    CONSTRAINT venue_request_key PRIMARY KEY (venue_client_order_id)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX venue_request_unsent ON venue_request (venue, number) WHERE sent_at IS NULL;

-- First answers of cancels and replaces, by the client's key.
CREATE TABLE request_key (
    account_id text COLLATE "C" NOT NULL,
    request_id text COLLATE "C" NOT NULL,
    command_hash bytea NOT NULL,
    answer bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT request_key_key PRIMARY KEY (account_id, request_id)
);
CREATE INDEX request_key_age ON request_key (created_at);

-- Kill switches as risk has set them. The firm's row always exists: every sender locks it FOR SHARE, and whoever changes any switch locks
-- it first, so a change waits for the senders that did not see it.
CREATE TABLE kill_switch (
    scope smallint NOT NULL,
    scope_id text COLLATE "C" NOT NULL,
    active boolean NOT NULL,
    version bigint NOT NULL,
    cancel_open_orders boolean NOT NULL,
    CONSTRAINT kill_switch_key PRIMARY KEY (scope, scope_id)
);
INSERT INTO kill_switch (scope, scope_id, active, version, cancel_open_orders) VALUES (1, '*', false, 0, false);

REVOKE ALL ON orders, execution, venue_request, request_key, kill_switch FROM :"runtime_role";
GRANT SELECT, INSERT, UPDATE ON orders, kill_switch TO :"runtime_role";
GRANT SELECT, INSERT ON execution TO :"runtime_role";
GRANT SELECT, INSERT, UPDATE, DELETE ON venue_request TO :"runtime_role";
GRANT SELECT, INSERT, DELETE ON request_key TO :"runtime_role";

-- The first event of each of these streams: the answer that a repeated key gets.
CREATE FUNCTION orders_first_events(p_streams text[])
RETURNS TABLE (stream_id text, type text, payload bytea, tx xid8, "position" bigint) LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY
    SELECT e.stream_id, e.type, e.payload, e.tx, e.position FROM event e WHERE e.stream_id = ANY (p_streams) AND e.version = 1;
END
$$;

-- The events of these streams above a version of each, each stream in order: what a cached state lacks.
CREATE FUNCTION orders_events_after(p_streams text[], p_versions integer[])
RETURNS TABLE (stream_id text, type text, payload bytea) LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY
    SELECT l.stream_id, l.type, l.payload
    FROM unnest(p_streams, p_versions) AS u (stream_id, version),
        LATERAL (
            SELECT e.stream_id, e.version, e.type, e.payload FROM event e
            WHERE e.stream_id = u.stream_id AND e.version > u.version ORDER BY e.version OFFSET 0
        ) l;
END
$$;

-- Write what follows from a batch of events, in one round trip. n_ new orders, c_ changed ones, q_ queued requests, s_ sent ones,
-- o_ overdue ones, d_ answered ones, x_ executions. Heads are locked by then, so nobody else writes these rows.
CREATE FUNCTION orders_project(
    n_order text[], n_account text[], n_tenant text[], n_principal text[], n_instrument text[], n_venue text[],
    n_side smallint[], n_state smallint[], n_open boolean[], n_version integer[], n_snapshot bytea[],
    c_order text[], c_state smallint[], c_open boolean[], c_version integer[], c_snapshot bytea[],
    q_request text[], q_venue text[], q_order text[], q_action smallint[],
    s_request text[], o_request text[], d_request text[],
    x_venue text[], x_date text[], x_exec text[], x_order text[], x_account text[], x_instrument text[], x_payload bytea[]
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF cardinality(n_order) > 0 THEN
        INSERT INTO orders (order_id, account_id, tenant, principal, instrument_id, venue, side, state, open, version, snapshot)
        SELECT * FROM unnest(
            n_order, n_account, n_tenant, n_principal, n_instrument, n_venue, n_side, n_state, n_open, n_version, n_snapshot
        );
    END IF;
    IF cardinality(c_order) > 0 THEN
        UPDATE orders o SET state = u.state, open = u.open, version = u.version, snapshot = u.snapshot
        FROM unnest(c_order, c_state, c_open, c_version, c_snapshot) AS u (order_id, state, open, version, snapshot)
        WHERE o.order_id = u.order_id;
    END IF;
    IF cardinality(q_request) > 0 THEN
        INSERT INTO venue_request (venue_client_order_id, venue, order_id, action)
        SELECT * FROM unnest(q_request, q_venue, q_order, q_action);
    END IF;
    IF cardinality(s_request) > 0 THEN
        UPDATE venue_request r SET sent_at = clock_timestamp()
        FROM unnest(s_request) AS u (venue_client_order_id)
        WHERE r.venue_client_order_id = u.venue_client_order_id;
    END IF;
    IF cardinality(o_request) > 0 THEN
        UPDATE venue_request r SET overdue = true
        FROM unnest(o_request) AS u (venue_client_order_id)
        WHERE r.venue_client_order_id = u.venue_client_order_id;
    END IF;
    IF cardinality(d_request) > 0 THEN
        DELETE FROM venue_request r USING unnest(d_request) AS u (venue_client_order_id)
        WHERE r.venue_client_order_id = u.venue_client_order_id;
    END IF;
    IF cardinality(x_exec) > 0 THEN
        INSERT INTO execution (venue, trade_date, exec_id, order_id, account_id, instrument_id, payload)
        SELECT * FROM unnest(x_venue, x_date, x_exec, x_order, x_account, x_instrument, x_payload);
    END IF;
END
$$;

-- Record a batch of orders that begin, events and read models, in one round trip that commits by itself. Orders are given in ascending id,
-- one event each; lists and the router's queue take them in order of arrival. Returns the log's tx and, per order as given, the event's
-- position; null where the stream had begun already (and no tx where all had).
CREATE FUNCTION orders_create(
    p_order text[], p_account text[], p_tenant text[], p_principal text[], p_instrument text[], p_venue text[],
    p_side smallint[], p_state smallint[], p_type text[], p_payload bytea[], p_snapshot bytea[], p_arrival integer[],
    OUT tx xid8, OUT positions bigint[]
) LANGUAGE plpgsql AS $$
DECLARE
    v_streams text[] := ARRAY(SELECT 'order-' || u.order_id FROM unnest(p_order) WITH ORDINALITY AS u (order_id, n) ORDER BY u.n);
    v_begun text[];
    v_places integer[] := ARRAY(SELECT generate_series(1, cardinality(p_order)));
    v_types text[] := p_type;
    v_payloads bytea[] := p_payload;
    v_count integer;
    v_numbers integer[];
    v_ones integer[];
    v_appended record;
    v_next integer := 0;
BEGIN
    -- A known key is found without a lock: whoever holds that order at the moment must not hold up this batch.
    v_begun := ARRAY(SELECT s.stream_id FROM event_stream s WHERE s.stream_id = ANY (v_streams) AND s.version > 0);
    IF cardinality(v_begun) > 0 THEN
        v_places := ARRAY(SELECT n FROM unnest(v_places) AS u (n) WHERE v_streams[n] <> ALL (v_begun) ORDER BY n);
        v_streams := ARRAY(SELECT v_streams[n] FROM unnest(v_places) AS u (n) ORDER BY n);
        v_types := ARRAY(SELECT p_type[n] FROM unnest(v_places) AS u (n) ORDER BY n);
        v_payloads := ARRAY(SELECT p_payload[n] FROM unnest(v_places) AS u (n) ORDER BY n);
    END IF;
    positions := array_fill(NULL::bigint, ARRAY[cardinality(p_order)]);
    v_count := cardinality(v_places);
    IF v_count = 0 THEN
        RETURN;
    END IF;
    v_numbers := ARRAY(SELECT generate_series(1, v_count));
    v_ones := array_fill(1, ARRAY[v_count]);
    SELECT * INTO v_appended FROM event_append(
        v_streams, v_count, v_ones, v_numbers, v_numbers, array_fill(0, ARRAY[v_count]), v_ones,
        v_numbers, v_streams, v_ones, v_types, v_payloads, array_fill(''::bytea, ARRAY[v_count])
    );
    tx := v_appended.tx;
    IF v_appended.refused = 0 AND v_count = cardinality(p_order) THEN
        positions := v_appended.positions;
    ELSE
        FOR n IN 1 .. v_count LOOP
            IF v_appended.met[n] IS NULL THEN
                v_next := v_next + 1;
                positions[v_places[n]] := v_appended.positions[v_next];
            END IF;
        END LOOP;
    END IF;
    INSERT INTO orders (order_id, account_id, tenant, principal, instrument_id, venue, side, state, open, version, snapshot)
    SELECT u.order_id, u.account_id, u.tenant, u.principal, u.instrument_id, u.venue, u.side, u.state, u.state = 1, 1, u.snapshot
    FROM unnest(p_order, p_account, p_tenant, p_principal, p_instrument, p_venue, p_side, p_state, p_snapshot, p_arrival, positions)
        AS u (order_id, account_id, tenant, principal, instrument_id, venue, side, state, snapshot, arrival, "position")
    WHERE u.position IS NOT NULL
    ORDER BY u.arrival;
    -- A new order that may be sent (PENDING_NEW) is its own request.
    INSERT INTO venue_request (venue_client_order_id, venue, order_id, action)
    SELECT u.order_id, u.venue, u.order_id, 0
    FROM unnest(p_order, p_venue, p_state, p_arrival, positions) AS u (order_id, venue, state, arrival, "position")
    WHERE u.state = 1 AND u.position IS NOT NULL
    ORDER BY u.arrival;
END
$$;

-- Nested loops over the keys whatever the statistics say: a plan cached while the tables were small must not scan them when they are large.
ALTER FUNCTION orders_first_events SET enable_hashjoin = off;
ALTER FUNCTION orders_first_events SET enable_mergejoin = off;
ALTER FUNCTION orders_first_events SET enable_material = off;
ALTER FUNCTION orders_first_events SET enable_seqscan = off;
ALTER FUNCTION orders_events_after SET enable_hashjoin = off;
ALTER FUNCTION orders_events_after SET enable_mergejoin = off;
ALTER FUNCTION orders_events_after SET enable_material = off;
ALTER FUNCTION orders_events_after SET enable_seqscan = off;
ALTER FUNCTION orders_create SET enable_seqscan = off;
ALTER FUNCTION orders_project SET enable_hashjoin = off;
ALTER FUNCTION orders_project SET enable_mergejoin = off;
ALTER FUNCTION orders_project SET enable_material = off;
ALTER FUNCTION orders_project SET enable_seqscan = off;
