-- Lock what a batch touches, in order, and read what those locks protect, in one round trip. Each statement of a function sees what was
-- committed before it began, so what is read after a lock is what the lock's last holder left.
--   p_accounts, p_traders   to lock, ascending without repetition; traders only where any trader's message rate is bounded
--   p_pair_*                positions to read, pairwise
--   p_instruments           prices to read
--   p_orders                reservations to read, with their answers
--   p_replaces              first answers of replaces to look for
--   p_duplicates            keys whose last approval is wanted
--   p_mark_age              accounts valued longer ago than this give all their positions with prices; null for none
CREATE FUNCTION risk_open(
    p_accounts text[], p_traders text[], p_pair_accounts text[], p_pair_instruments text[], p_instruments text[],
    p_orders uuid[], p_replaces uuid[], p_duplicates bigint[], p_mark_age interval,
    OUT moment timestamptz, OUT policy_version bigint,
    OUT accounts account_exposure[], OUT traders trader_rate[], OUT revalued text[], OUT positions position_exposure[],
    OUT prices reference_price[], OUT feeds price_feed[],
    OUT reservations reservation[], OUT replaces replace_check[], OUT duplicate_keys bigint[], OUT duplicate_times timestamptz[]
) LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(policy_lock_key());
    SELECT p.version INTO policy_version FROM policy p;

    SELECT array_agg(ROW (l.*)::account_exposure) INTO accounts
    FROM (SELECT * FROM account_exposure a WHERE a.account_id = ANY (p_accounts) ORDER BY a.account_id FOR NO KEY UPDATE) l;

    IF cardinality(p_traders) > 0 AND EXISTS (SELECT FROM risk_limit l WHERE l.scope = 2 AND l.type = 7) THEN
        INSERT INTO trader_rate (principal, rate_tick, rate_counts)
        SELECT u.principal, 0, '' FROM unnest(p_traders) WITH ORDINALITY AS u (principal, n) ORDER BY u.n
        ON CONFLICT DO NOTHING;
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
        SELECT array_agg(d.key), array_agg(d.approved) INTO duplicate_keys, duplicate_times
        FROM (
            SELECT u.key, (SELECT max(r.reserved_at) FROM reservation r WHERE r.duplicate_key = u.key) AS approved
            FROM unnest(p_duplicates) AS u (key)
        ) d
        WHERE d.approved IS NOT NULL;
    END IF;

    SELECT coalesce(array_agg(a.account_id), '{}') INTO revalued
    FROM unnest(accounts) AS a WHERE a.marked_at < moment - p_mark_age;
    SELECT array_agg(p) INTO positions
    FROM (
        SELECT u.account_id, u.instrument_id FROM unnest(p_pair_accounts, p_pair_instruments) AS u (account_id, instrument_id)
        UNION
        SELECT q.account_id, q.instrument_id FROM position_exposure q WHERE q.account_id = ANY (revalued) AND q.position <> 0
    ) k
    JOIN position_exposure p ON p.account_id = k.account_id AND p.instrument_id = k.instrument_id;

    SELECT array_agg(r) INTO prices FROM reference_price r
    WHERE r.instrument_id = ANY (p_instruments || ARRAY(SELECT DISTINCT x.instrument_id FROM unnest(positions) AS x));
    SELECT array_agg(f) INTO feeds FROM price_feed f;
END
$$;
