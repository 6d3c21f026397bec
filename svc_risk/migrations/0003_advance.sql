-- Note that the events of orders up to `p_after` are folded in, where nothing else changes than that an order is known to stand behind its
-- reservation. Locks no account: whatever the holder of an account's lock does to a reservation meanwhile holds with and without this, and
-- what it writes back keeps it (`_MOVE` in `svc_risk/store/ledger.py`). Rows are locked in order of ids, after everything else.
--   p_orders    ascending without repetition
--   p_before    what is folded in now, null for anything below `p_after`
--   p_status    of the reservation, null for any; an unconfirmed one is confirmed
--   behind      orders without such a reservation, null for none
CREATE FUNCTION risk_advance(p_orders uuid[], p_before integer[], p_after integer[], p_status smallint[], OUT behind text[])
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
    advanced uuid[];
BEGIN
    WITH moved AS (
        UPDATE reservation r SET order_version = u.after, status = CASE u.status WHEN 1 THEN 2 ELSE r.status END
        FROM unnest(p_orders, p_before, p_after, p_status) AS u (order_id, before, after, status)
        WHERE r.order_id = u.order_id AND r.order_version < u.after
            AND (u.before IS NULL OR r.order_version = u.before) AND (u.status IS NULL OR r.status = u.status)
        RETURNING r.order_id
    )
    SELECT array_agg(m.order_id) INTO advanced FROM moved m;
    IF coalesce(cardinality(advanced), 0) < cardinality(p_orders) THEN
        SELECT array_agg(e.order_id::text) INTO behind FROM (SELECT unnest(p_orders) EXCEPT SELECT unnest(advanced)) AS e (order_id);
    END IF;
END
$$;

-- A round confirms whole pages of reservations at once. With room for as many rows again they all stay on their page, and on no index.
ALTER TABLE reservation SET (fillfactor = 50);
