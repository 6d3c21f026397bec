-- What portfolio knows. Quantities and prices are numeric(38,18); products of them are numeric without bounds, because they are exact.
-- Text keys are compared bytewise. `log_tx` and `log_position` are places in svc_oms's log.

-- Accounts and instruments as svc_risk told of them last.
CREATE TABLE account (
    account_id text COLLATE "C" PRIMARY KEY,
    tenant text COLLATE "C" NOT NULL,
    version bigint NOT NULL
);

CREATE TABLE instrument (
    instrument_id text COLLATE "C" PRIMARY KEY,
    currency text COLLATE "C" NOT NULL,
    venue text COLLATE "C" NOT NULL,
    version bigint NOT NULL
);

-- Every execution, once by (venue, trade date, exec id), for ever: all else is a fold of it. `root_*` is the fill that it is or amends.
CREATE TABLE execution (
    venue text COLLATE "C" NOT NULL,
    trade_date text COLLATE "C" NOT NULL,
    exec_id text COLLATE "C" NOT NULL,
    root_venue text COLLATE "C" NOT NULL,
    root_trade_date text COLLATE "C" NOT NULL,
    root_exec_id text COLLATE "C" NOT NULL,
    account_id text COLLATE "C" NOT NULL,
    instrument_id text COLLATE "C" NOT NULL,
    order_id text COLLATE "C" NOT NULL,
    type smallint NOT NULL,
    exec_ref_id text COLLATE "C" NOT NULL,
    side smallint NOT NULL,
    quantity numeric(38, 18) NOT NULL CHECK (quantity > 0),
    price numeric(38, 18) NOT NULL,
    transact_time timestamptz NOT NULL,
    log_tx bigint NOT NULL,
    log_position bigint NOT NULL,
    CONSTRAINT execution_counts_once PRIMARY KEY (venue, trade_date, exec_id)
);
CREATE UNIQUE INDEX execution_of_position ON execution (account_id, instrument_id, log_tx, log_position);

-- One row per execution: the position that it made.
CREATE TABLE position_change (
    account_id text COLLATE "C" NOT NULL,
    instrument_id text COLLATE "C" NOT NULL,
    version bigint NOT NULL CHECK (version > 0),
    log_tx bigint NOT NULL,
    log_position bigint NOT NULL,
    quantity numeric(38, 18) NOT NULL,
    cost numeric NOT NULL,
    realised numeric NOT NULL,
    message bytea NOT NULL,
    PRIMARY KEY (account_id, instrument_id, version)
);
CREATE UNIQUE INDEX position_change_in_log ON position_change (log_tx, log_position);
CREATE UNIQUE INDEX position_change_of_position ON position_change (account_id, instrument_id, log_tx, log_position);
CREATE INDEX position_change_of_account ON position_change (account_id, log_tx, log_position);

CREATE FUNCTION history_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'history is never changed: % on % refused', TG_OP, TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER execution_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON execution
    FOR EACH STATEMENT EXECUTE FUNCTION history_refuse_change();
CREATE TRIGGER position_change_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON position_change
    FOR EACH STATEMENT EXECUTE FUNCTION history_refuse_change();

-- The latest of each.
CREATE TABLE current_position (
    account_id text COLLATE "C" NOT NULL,
    instrument_id text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    log_tx bigint NOT NULL,
    log_position bigint NOT NULL,
    quantity numeric(38, 18) NOT NULL,
    cost numeric NOT NULL,
    realised numeric NOT NULL,
    PRIMARY KEY (account_id, instrument_id)
) WITH (fillfactor = 60);

-- Lots and their closings as they are now; a bust or correction replaces those of its position.
CREATE TABLE lot (
    account_id text COLLATE "C" NOT NULL,
    instrument_id text COLLATE "C" NOT NULL,
    log_tx bigint NOT NULL,
    log_position bigint NOT NULL,
    venue text COLLATE "C" NOT NULL,
    trade_date text COLLATE "C" NOT NULL,
    exec_id text COLLATE "C" NOT NULL,
    order_id text COLLATE "C" NOT NULL,
    side smallint NOT NULL,
    open_time timestamptz NOT NULL,
    quantity numeric(38, 18) NOT NULL CHECK (quantity > 0),
    price numeric(38, 18) NOT NULL,
    remaining numeric(38, 18) NOT NULL CHECK (remaining >= 0 AND remaining <= quantity),
    PRIMARY KEY (account_id, instrument_id, log_tx, log_position)
) WITH (fillfactor = 70);
CREATE INDEX lot_open ON lot (account_id, instrument_id, log_tx, log_position) WHERE remaining > 0;

CREATE TABLE lot_match (
    account_id text COLLATE "C" NOT NULL,
    instrument_id text COLLATE "C" NOT NULL,
    lot_tx bigint NOT NULL,
    lot_position bigint NOT NULL,
    closing_tx bigint NOT NULL,
    closing_position bigint NOT NULL,
    venue text COLLATE "C" NOT NULL,
    trade_date text COLLATE "C" NOT NULL,
    exec_id text COLLATE "C" NOT NULL,
    close_time timestamptz NOT NULL,
    quantity numeric(38, 18) NOT NULL CHECK (quantity > 0),
    close_price numeric(38, 18) NOT NULL,
    realised numeric NOT NULL,
    PRIMARY KEY (account_id, instrument_id, lot_tx, lot_position, closing_tx, closing_position)
);
CREATE INDEX lot_match_by_trade_date ON lot_match (account_id, instrument_id, trade_date) INCLUDE (realised);

REVOKE ALL ON account, instrument, execution, position_change, current_position, lot, lot_match FROM :"runtime_role";
GRANT SELECT, INSERT, UPDATE ON account, instrument, current_position TO :"runtime_role";
GRANT SELECT, INSERT ON execution, position_change TO :"runtime_role";
GRANT SELECT, INSERT, UPDATE, DELETE ON lot, lot_match TO :"runtime_role";
