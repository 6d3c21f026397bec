-- A position as a line of words, for `risk_open`.
CREATE FUNCTION risk_position_line(p position_exposure) RETURNS text LANGUAGE sql STABLE RETURN
    p.account_id || ' ' || p.instrument_id || ' ' || trim_scale(p.position)::text || ' ' || trim_scale(p.mark)::text
    || ' ' || trim_scale(p.buy_quantity)::text || ' ' || trim_scale(p.buy_notional)::text
    || ' ' || trim_scale(p.sell_quantity)::text || ' ' || trim_scale(p.sell_notional)::text;

-- Lock what a batch touches, in order, and read what those locks protect, in one round trip. Each statement of a function sees what was
-- committed before it began, so what is read after a lock is what the lock's last holder left.
--   p_accounts, p_traders   to lock, ascending without repetition; traders only where any trader's message rate is bounded
--   p_pair_*                positions to read, pairwise
--   p_instruments           prices to read
--   p_orders                reservations to read, with their answers
--   p_replaces              first answers of replaces to look for
--   p_duplicates            keys whose last approval is wanted
--   p_mark_age              accounts valued longer ago than this give all their positions with prices; null for none
-- Accounts and positions come as lines of words, columns in the tables' order, numbers without zeros at their end, times in microseconds
-- since 1970, bytes in hex: there are many, and drivers take long over arrays of rows.
CREATE FUNCTION risk_open(
    p_accounts text[], p_traders text[], p_pair_accounts text[], p_pair_instruments text[], p_instruments text[],
    p_orders uuid[], p_replaces uuid[], p_duplicates bigint[], p_mark_age interval,
    OUT moment timestamptz, OUT policy_version bigint,
    OUT accounts text, OUT traders trader_rate[], OUT revalued text[], OUT positions text,
    OUT prices reference_price[], OUT feeds price_feed[],
    OUT reservations reservation[], OUT replaces replace_check[], OUT duplicate_keys bigint[], OUT duplicate_times timestamptz[]
) LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
    v_instruments text[] := p_instruments;
BEGIN
    PERFORM pg_advisory_xact_lock_shared(policy_lock_key());
    SELECT p.version INTO policy_version FROM policy p;

    SELECT string_agg(
        l.account_id || ' ' || l.version::text || ' ' || trim_scale(l.buy_notional)::text || ' ' || trim_scale(l.sell_notional)::text
        || ' ' || trim_scale(l.gross)::text || ' ' || l.reservation_count::text || ' ' || l.rate_tick::text
        || ' ' || ((extract(epoch FROM l.marked_at) * 1000000)::bigint)::text || ' ' || encode(l.rate_counts, 'hex'), E'\n'
    ), coalesce(array_agg(l.account_id) FILTER (WHERE l.marked_at < clock_timestamp() - p_mark_age), '{}') INTO accounts, revalued
    FROM (SELECT * FROM account_exposure a WHERE a.account_id = ANY (p_accounts) ORDER BY a.account_id FOR NO KEY UPDATE) l;

    IF cardinality(p_traders) > 0 AND EXISTS (SELECT FROM risk_limit l WHERE l.scope = 2 AND l.type = 7) THEN
        IF (SELECT count(*) FROM trader_rate t WHERE t.principal = ANY (p_traders)) < cardinality(p_traders) THEN
            INSERT INTO trader_rate (principal, rate_tick, rate_counts)
            SELECT u.principal, 0, '' FROM unnest(p_traders) WITH ORDINALITY AS u (principal, n) ORDER BY u.n
            ON CONFLICT DO NOTHING;
        END IF;
        SELECT array_agg(ROW (l.*)::trader_rate) INTO traders
        FROM (SELECT * FROM trader_rate t WHERE t.principal = ANY (p_traders) ORDER BY t.principal FOR NO KEY UPDATE) l;
    END IF;

    -- Under the locks, so that no decision is earlier than the one whose state it reads.
    moment := clock_timestamp();

    SELECT array_agg(r) INTO reservations FROM reservation r WHERE r.order_id = ANY (p_orders);
    IF cardinality(p_replaces) > 0 THEN
        SELECT array_agg(c) INTO replaces FROM replace_check c WHERE c.request_id = ANY (p_replaces);
    END IF;
    IF cardinality(p_duplicates) > 0 THEN
        SELECT array_agg(u.key), array_agg(d.reserved_at) INTO duplicate_keys, duplicate_times
        FROM unnest(p_duplicates) AS u (key)
        CROSS JOIN LATERAL (
            SELECT r.reserved_at FROM reservation r WHERE r.duplicate_key = u.key ORDER BY r.reserved_at DESC LIMIT 1
        ) d;
    END IF;

    SELECT string_agg(line, E'\n') INTO positions
    FROM (
        SELECT risk_position_line(p) AS line
        FROM unnest(p_pair_accounts, p_pair_instruments) AS u (account_id, instrument_id)
        JOIN position_exposure p ON p.account_id = u.account_id AND p.instrument_id = u.instrument_id
    ) l;
    IF cardinality(revalued) > 0 THEN
        SELECT concat_ws(E'\n', positions, string_agg(risk_position_line(p), E'\n')), v_instruments || array_agg(DISTINCT p.instrument_id)
        INTO positions, v_instruments
        FROM position_exposure p WHERE p.account_id = ANY (revalued) AND p.position <> 0;
    END IF;

    SELECT array_agg(r) INTO prices FROM reference_price r
    WHERE r.instrument_id = ANY (v_instruments);
    SELECT array_agg(f) INTO feeds FROM price_feed f;
END
$$;

-- Write what a book changed, with the events that it made, in one round trip. The accounts are locked, so nobody else writes any of these
-- rows; accounts exist, positions may be new.
--   p_streams, p_expected, p_count, p_event_*   as in `event_extend`; none where the book made no event
--   p_account*                                  one per account; p_revalued: its positions were valued at p_moment
--   p_windows                                   their message counts, one after the other, 44 bytes each
--   p_pair*                                     one per position
--   p_trader*                                   one per trader, p_trader_windows as above
--   p_order*                                    one per new reservation; p_hashes: payload hashes, 32 bytes each; p_answers: cut apart by
--                                               p_answer_start (from 1) and p_answer_length
-- Returns what `event_extend` does.
CREATE FUNCTION risk_write(
    p_moment timestamptz,
    p_streams text[], p_expected integer[], p_count integer[],
    p_event_stream text[], p_event_version integer[], p_event_type text[],
    p_payloads bytea, p_event_start integer[], p_event_length integer[],
    p_accounts text[], p_versions integer[], p_buy_notional numeric[], p_sell_notional numeric[], p_gross numeric[],
    p_reservation_count integer[], p_tick bigint[], p_windows bytea, p_revalued boolean[],
    p_pair_accounts text[], p_pair_instruments text[], p_position numeric[], p_mark numeric[],
    p_pair_buy_quantity numeric[], p_pair_buy_notional numeric[], p_pair_sell_quantity numeric[], p_pair_sell_notional numeric[],
    p_traders text[], p_trader_tick bigint[], p_trader_windows bytea,
    p_orders uuid[], p_order_account text[], p_order_instrument text[], p_side smallint[], p_status smallint[],
    p_quantity numeric[], p_price numeric[], p_duplicate_key bigint[],
    p_hashes bytea, p_answers bytea, p_answer_start integer[], p_answer_length integer[],
    OUT tx xid8, OUT own_tx xid8, OUT last_position bigint
) LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
    v_written integer;
BEGIN
    UPDATE account_exposure t SET
        version = u.version, buy_notional = u.buy_notional, sell_notional = u.sell_notional, gross = u.gross,
        reservation_count = u.reservation_count, rate_tick = u.tick, rate_counts = substr(p_windows, 44 * u.n::integer - 43, 44),
        marked_at = CASE WHEN u.revalued THEN p_moment ELSE t.marked_at END
    FROM unnest(p_accounts, p_versions, p_buy_notional, p_sell_notional, p_gross, p_reservation_count, p_tick, p_revalued)
        WITH ORDINALITY AS u (account_id, version, buy_notional, sell_notional, gross, reservation_count, tick, revalued, n)
    WHERE t.account_id = u.account_id;
    GET DIAGNOSTICS v_written = ROW_COUNT;
    ASSERT v_written = cardinality(p_accounts), 'an account without exposure';

    UPDATE position_exposure t SET
        position = u.position, mark = u.mark, buy_quantity = u.buy_quantity, buy_notional = u.buy_notional,
        sell_quantity = u.sell_quantity, sell_notional = u.sell_notional
    FROM unnest(
        p_pair_accounts, p_pair_instruments, p_position, p_mark,
        p_pair_buy_quantity, p_pair_buy_notional, p_pair_sell_quantity, p_pair_sell_notional
    ) AS u (account_id, instrument_id, position, mark, buy_quantity, buy_notional, sell_quantity, sell_notional)
    WHERE t.account_id = u.account_id AND t.instrument_id = u.instrument_id;
    GET DIAGNOSTICS v_written = ROW_COUNT;
    IF v_written < cardinality(p_pair_accounts) THEN
        INSERT INTO position_exposure
        SELECT * FROM unnest(
            p_pair_accounts, p_pair_instruments, p_position, p_mark,
            p_pair_buy_quantity, p_pair_buy_notional, p_pair_sell_quantity, p_pair_sell_notional
        )
        ON CONFLICT (account_id, instrument_id) DO NOTHING;
    END IF;

    IF cardinality(p_traders) > 0 THEN
        INSERT INTO trader_rate AS t
        SELECT u.principal, u.tick, substr(p_trader_windows, 44 * u.n::integer - 43, 44)
        FROM unnest(p_traders, p_trader_tick) WITH ORDINALITY AS u (principal, tick, n)
        ON CONFLICT (principal) DO UPDATE SET rate_tick = excluded.rate_tick, rate_counts = excluded.rate_counts;
    END IF;

    IF cardinality(p_orders) > 0 THEN
        INSERT INTO reservation (
            order_id, account_id, instrument_id, side, status, quantity, price, filled, order_version, reserved_at,
            duplicate_key, payload_hash, answer
        )
        SELECT
            u.order_id, u.account_id, u.instrument_id, u.side, u.status, u.quantity, u.price, 0, 0, p_moment,
            u.duplicate_key, substr(p_hashes, 32 * u.n::integer - 31, 32), substr(p_answers, u.start, u.length)
        FROM unnest(
            p_orders, p_order_account, p_order_instrument, p_side, p_status, p_quantity, p_price, p_duplicate_key,
            p_answer_start, p_answer_length
        ) WITH ORDINALITY AS u (order_id, account_id, instrument_id, side, status, quantity, price, duplicate_key, start, length, n);
    END IF;

    IF cardinality(p_streams) > 0 THEN
        SELECT e.tx, e.own_tx, e.last_position INTO tx, own_tx, last_position
        FROM event_extend(
            p_streams, p_expected, p_count, p_event_stream, p_event_version, p_event_type, p_payloads, p_event_start, p_event_length
        ) e;
    ELSE
        own_tx := pg_current_xact_id();
    END IF;
END
$$;
