-- Cancels and replaces that are decided on what was looked at, and recorded by one statement.

-- The place in the log that a first answer names; it is known when the answer is written, and not before. Null where the answer names one
-- itself, as all did before these columns.
ALTER TABLE request_key ADD COLUMN tx xid8, ADD COLUMN position bigint;

-- Record what was decided on orders as they were looked at, without a lock until now, in one round trip that commits by itself: events (e_, as
-- event_extend takes them), read models (as orders_project takes them), and first answers of keys (k_), which get the place in the log that
-- is returned: that of the last event, 0 and 0 without events. h_ are the heads of all orders that were looked at, ascending, and the
-- versions that they had. A head that has moved, or a key that was answered meanwhile, fails the statement with serialization_failure.
-- Locks are taken in the order that all writers keep: heads, rows of the orders, keys.
CREATE FUNCTION orders_change(
    e_streams text[], e_expected integer[], e_count integer[],
    e_stream text[], e_version integer[], e_type text[], e_payloads bytea, e_start integer[], e_length integer[],
    n_order text[], n_account text[], n_tenant text[], n_principal text[], n_instrument text[], n_venue text[],
    n_side smallint[], n_state smallint[], n_open boolean[], n_version integer[], n_snapshot bytea[],
    c_order text[], c_state smallint[], c_open boolean[], c_version integer[], c_snapshot bytea[],
    q_request text[], q_venue text[], q_order text[], q_action smallint[],
    s_request text[], o_request text[], d_request text[],
    x_venue text[], x_date text[], x_exec text[], x_order text[], x_account text[], x_instrument text[], x_payload bytea[],
    h_streams text[], h_versions integer[],
    k_account text[], k_request text[], k_hash bytea[], k_answer bytea[],
    OUT tx xid8, OUT last_position bigint
) LANGUAGE plpgsql AS $$
DECLARE
    v_answered integer;
BEGIN
    IF event_lock(h_streams) IS DISTINCT FROM h_versions THEN
        RAISE EXCEPTION 'an order is not as it was looked at' USING ERRCODE = 'serialization_failure';
    END IF;
    IF cardinality(e_streams) > 0 THEN
        SELECT e.tx, e.last_position INTO tx, last_position
        FROM event_extend(e_streams, e_expected, e_count, e_stream, e_version, e_type, e_payloads, e_start, e_length) AS e;
        PERFORM orders_project(
            n_order, n_account, n_tenant, n_principal, n_instrument, n_venue, n_side, n_state, n_open, n_version, n_snapshot,
            c_order, c_state, c_open, c_version, c_snapshot,
            q_request, q_venue, q_order, q_action,
            s_request, o_request, d_request,
            x_venue, x_date, x_exec, x_order, x_account, x_instrument, x_payload
        );
    ELSE
        tx := '0'::xid8;
        last_position := 0;
    END IF;
    IF cardinality(k_request) > 0 THEN
        INSERT INTO request_key (account_id, request_id, command_hash, answer, tx, position)
        SELECT u.account_id, u.request_id, u.command_hash, u.answer, orders_change.tx, orders_change.last_position
        FROM unnest(k_account, k_request, k_hash, k_answer) AS u (account_id, request_id, command_hash, answer)
        ON CONFLICT DO NOTHING;
        GET DIAGNOSTICS v_answered = ROW_COUNT;
        IF v_answered < cardinality(k_request) THEN
            RAISE EXCEPTION 'a key was answered meanwhile' USING ERRCODE = 'serialization_failure';
        END IF;
    END IF;
END
$$;
