-- What risk knows. Money and quantities are numeric(38,18), text keys are compared bytewise.
-- Order of locks, everywhere: policy, accounts by id, traders by principal, heads of streams. Whoever keeps to it cannot deadlock.

CREATE TABLE account (
    account_id text COLLATE "C" PRIMARY KEY,
    tenant text COLLATE "C" NOT NULL,
    display_name text NOT NULL,
    currency text COLLATE "C" NOT NULL,
    status smallint NOT NULL,
    version integer NOT NULL,
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL
);
CREATE INDEX account_of_tenant ON account (tenant, account_id);

CREATE TABLE instrument (
    instrument_id text COLLATE "C" PRIMARY KEY,
    display_name text NOT NULL,
    asset_class smallint NOT NULL,
    currency text COLLATE "C" NOT NULL,
    tick_size numeric(38, 18) NOT NULL CHECK (tick_size > 0),
    lot_size numeric(38, 18) NOT NULL CHECK (lot_size > 0),
    venue text COLLATE "C" NOT NULL,
    time_zone text NOT NULL,
    open_time text NOT NULL,
    close_time text NOT NULL,
    holidays text[] NOT NULL,
    status smallint NOT NULL,
    version integer NOT NULL,
    update_time timestamptz NOT NULL
);

CREATE TABLE risk_limit (
    scope smallint NOT NULL,
    scope_id text COLLATE "C" NOT NULL,
    type smallint NOT NULL,
    value numeric(38, 18) NOT NULL CHECK (value >= 0),
    version integer NOT NULL,
    principal text NOT NULL,
    update_time timestamptz NOT NULL,
    PRIMARY KEY (scope, scope_id, type)
);

-- `told` is the version that svc_oms has confirmed; below `version` it must be told.
CREATE TABLE kill_switch (
    scope smallint NOT NULL,
    scope_id text COLLATE "C" NOT NULL,
    status smallint NOT NULL,
    version integer NOT NULL,
    principal text NOT NULL,
    comment text NOT NULL,
    cancel_open_orders boolean NOT NULL,
    update_time timestamptz NOT NULL,
    PRIMARY KEY (scope, scope_id)
);
CREATE INDEX kill_switch_by_time ON kill_switch (update_time DESC, scope, scope_id);

-- One row. Its version grows with every change, by whomever, of what binds orders, and every decision compares it.
CREATE TABLE policy (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    version bigint NOT NULL
);
INSERT INTO policy (version) VALUES (1);

-- Decisions hold this lock shared until they commit, changes of policy exclusively: a change that was answered binds every approval that
-- commits after it. An advisory lock, because it queues: sharers of a row's lock can keep a writer waiting for ever.
CREATE FUNCTION policy_lock_key() RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$ SELECT hashtextextended('trademesh.policy.' || current_schema(), 0) $$;

CREATE FUNCTION policy_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(policy_lock_key());
    UPDATE policy SET version = version + 1;
    RETURN NULL;
END
$$;

CREATE TRIGGER account_binds AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON account
    FOR EACH STATEMENT EXECUTE FUNCTION policy_changed();
CREATE TRIGGER instrument_binds AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON instrument
    FOR EACH STATEMENT EXECUTE FUNCTION policy_changed();
CREATE TRIGGER limit_binds AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON risk_limit
    FOR EACH STATEMENT EXECUTE FUNCTION policy_changed();
CREATE TRIGGER kill_switch_binds AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON kill_switch
    FOR EACH STATEMENT EXECUTE FUNCTION policy_changed();

-- The row that every decision for an account locks. `rate_counts` are the messages in the eleven tenths of a
-- second up to `rate_tick`, newest first, four bytes each in network order; empty for none.
CREATE TABLE account_exposure (
    account_id text COLLATE "C" PRIMARY KEY,
    version integer NOT NULL,
    buy_notional numeric(38, 18) NOT NULL CHECK (buy_notional >= 0),
    sell_notional numeric(38, 18) NOT NULL CHECK (sell_notional >= 0),
    gross numeric(38, 18) NOT NULL CHECK (gross >= 0),
    reservation_count integer NOT NULL CHECK (reservation_count >= 0),
    rate_tick bigint NOT NULL,
    rate_counts bytea NOT NULL,
    marked_at timestamptz NOT NULL
) WITH (fillfactor = 40, autovacuum_vacuum_scale_factor = 0.1);

CREATE TABLE position_exposure (
    account_id text COLLATE "C" NOT NULL,
    instrument_id text COLLATE "C" NOT NULL,
    position numeric(38, 18) NOT NULL,
    mark numeric(38, 18) NOT NULL,
    buy_quantity numeric(38, 18) NOT NULL CHECK (buy_quantity >= 0),
    buy_notional numeric(38, 18) NOT NULL CHECK (buy_notional >= 0),
    sell_quantity numeric(38, 18) NOT NULL CHECK (sell_quantity >= 0),
    sell_notional numeric(38, 18) NOT NULL CHECK (sell_notional >= 0),
    PRIMARY KEY (account_id, instrument_id)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.1);

CREATE TABLE trader_rate (
    principal text COLLATE "C" PRIMARY KEY,
    rate_tick bigint NOT NULL,
    rate_counts bytea NOT NULL
) WITH (fillfactor = 50);

-- An approved replace that is neither in force nor given up; `confirmed` once svc_oms has recorded it.
CREATE TYPE pending_terms AS (
    request_id uuid,
    quantity numeric(38, 18),
    price numeric(38, 18),
    confirmed boolean
);

-- One row per new order that was decided: its reservation, and the first answer for replays. No index on what changes, so that updates
-- stay on their page; reserved_at only grows, which a block range index covers at no cost per row. `pending` is null for none, which few
-- orders ever have.
CREATE TABLE reservation (
    order_id uuid PRIMARY KEY,
    account_id text COLLATE "C" NOT NULL,
    instrument_id text COLLATE "C" NOT NULL,
    side smallint NOT NULL,
    status smallint NOT NULL,
    quantity numeric(38, 18) NOT NULL,
    price numeric(38, 18) NOT NULL,
    filled numeric(38, 18) NOT NULL,
    pending pending_terms[],
    order_version integer NOT NULL,
    reserved_at timestamptz NOT NULL,
    duplicate_key bigint,
    payload_hash bytea NOT NULL,
    answer bytea NOT NULL
) WITH (fillfactor = 75);
CREATE INDEX reservation_by_time ON reservation USING brin (reserved_at) WITH (pages_per_range = 16, autosummarize = on);
-- Refused orders, and orders of accounts without a duplicate window, have no key.
CREATE INDEX reservation_duplicate ON reservation (duplicate_key, reserved_at) WHERE duplicate_key IS NOT NULL;

-- One row per replace that was decided.
CREATE TABLE replace_check (
    request_id uuid PRIMARY KEY,
    order_id uuid NOT NULL,
    account_id text COLLATE "C" NOT NULL,
    payload_hash bytea NOT NULL,
    answer bytea NOT NULL,
    approved boolean NOT NULL,
    checked_at timestamptz NOT NULL
);
CREATE INDEX replace_check_by_time ON replace_check USING brin (checked_at) WITH (pages_per_range = 16, autosummarize = on);

-- What the price feeds last said, each written by the one replica that holds its lease. A feed is named like the venue that it speaks for;
-- times are this server's.
CREATE TABLE reference_price (
    instrument_id text COLLATE "C" PRIMARY KEY,
    bid numeric(38, 18) CHECK (bid > 0),
    ask numeric(38, 18) CHECK (ask > 0),
    last_trade numeric(38, 18) CHECK (last_trade > 0),
    prior_close numeric(38, 18) CHECK (prior_close > 0),
    prior_close_date date,
    stale boolean NOT NULL,
    feed text COLLATE "C" NOT NULL,
    update_time timestamptz NOT NULL
) WITH (fillfactor = 30);

CREATE TABLE price_feed (
    feed text COLLATE "C" PRIMARY KEY,
    heartbeat_at timestamptz NOT NULL
) WITH (fillfactor = 20);

-- First answers of writes other than checks, by the client's request id.
CREATE TABLE request (
    request_id uuid PRIMARY KEY,
    command_hash bytea NOT NULL,
    answer bytea NOT NULL,
    create_time timestamptz NOT NULL
);

-- Where the sweep for orphans stands: reservations older than this are settled.
CREATE TABLE orphan_sweep (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    settled_until timestamptz NOT NULL
);
INSERT INTO orphan_sweep (settled_until) VALUES ('-infinity');
