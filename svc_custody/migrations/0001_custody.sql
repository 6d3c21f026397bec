-- What custody knows. Money and quantities are numeric(38,18), text keys are compared bytewise.
-- Every client account has a ledger of its own, with all ledger accounts in it, so it balances by itself, and the whole is their sum.
-- Order of locks, everywhere: a request's key, heads of the streams `ledger-<account>` in their order, the business date. The head protects
-- every row of its account below; nothing else is locked.

-- Facts of svc_risk.
CREATE TABLE account (
    account_id text COLLATE "C" PRIMARY KEY,
    tenant text COLLATE "C" NOT NULL,
    version integer NOT NULL
);
CREATE INDEX account_of_tenant ON account (tenant, account_id);

CREATE TABLE instrument (
    instrument_id text COLLATE "C" PRIMARY KEY,
    asset_class smallint NOT NULL,
    currency text COLLATE "C" NOT NULL,
    venue text COLLATE "C" NOT NULL,
    holidays date[] NOT NULL,
    version integer NOT NULL
);

-- Executions whose instrument svc_risk has not told yet. They are posted in this order once it has.
CREATE TABLE parked_execution (
    sequence bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id text COLLATE "C" NOT NULL,
    instrument_id text COLLATE "C" NOT NULL,
    execution bytea NOT NULL,
    parked_at timestamptz NOT NULL
);
CREATE INDEX parked_execution_of_account ON parked_execution (account_id, instrument_id);

-- First answers of writes, by the client's request id.
CREATE TABLE request (
    request_id uuid PRIMARY KEY,
    command_hash bytea NOT NULL,
    answer bytea NOT NULL,
    create_time timestamptz NOT NULL
);

-- One row, written when the first replica starts.
CREATE TABLE business_date (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    business_date date NOT NULL
);

-- Balances: the sums of the entries, credits positive. `ledger_account` has the contract's numbers: 1 available, 2 held, 3 pending in,
-- 4 pending out, 5 venue settlement, 6 omnibus, 7 suspense. `venue` is empty except for 5.
CREATE TABLE ledger_balance (
    account_id text COLLATE "C" NOT NULL,
    asset_type smallint NOT NULL,
    asset_id text COLLATE "C" NOT NULL,
    ledger_account smallint NOT NULL CHECK (ledger_account BETWEEN 1 AND 7),
    venue text COLLATE "C" NOT NULL,
    balance numeric(38, 18) NOT NULL,
    PRIMARY KEY (account_id, asset_type, asset_id, ledger_account, venue),
    CONSTRAINT client_balance_never_negative CHECK (balance >= 0 OR ledger_account NOT IN (1, 2, 3)),
    CONSTRAINT pending_out_never_positive CHECK (balance <= 0 OR ledger_account <> 4)
) WITH (fillfactor = 60);

CREATE TABLE ledger_entry (
    account_id text COLLATE "C" NOT NULL,
    version integer NOT NULL,
    line integer NOT NULL CHECK (line > 0),
    ledger_account smallint NOT NULL CHECK (ledger_account BETWEEN 1 AND 7),
    asset_type smallint NOT NULL,
    asset_id text COLLATE "C" NOT NULL,
    venue text COLLATE "C" NOT NULL,
    amount numeric(38, 18) NOT NULL CHECK (amount <> 0),
    event_type text COLLATE "C" NOT NULL,
    reference_id text COLLATE "C" NOT NULL,
    booking_date date NOT NULL,
    event_time timestamptz NOT NULL,
    PRIMARY KEY (account_id, version, line)
);
CREATE INDEX ledger_entry_of_asset ON ledger_entry (account_id, asset_type, asset_id, version, line);

-- Entries are appended and never changed.
REVOKE ALL ON ledger_entry FROM :"runtime_role";
GRANT SELECT, INSERT ON ledger_entry TO :"runtime_role";

CREATE FUNCTION ledger_entry_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'entries are never changed: % refused', TG_OP USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER ledger_entry_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_entry
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_entry_refuse_change();

-- Every posting balances for each asset, whatever writes it.
CREATE FUNCTION ledger_posting_balances() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT FROM inserted i GROUP BY i.account_id, i.version, i.asset_type, i.asset_id HAVING sum(i.amount) <> 0
    ) THEN
        RAISE EXCEPTION 'a posting does not sum to zero' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER ledger_posting_balances AFTER INSERT ON ledger_entry
    REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION ledger_posting_balances();

-- At every commit the balances of a ledger sum to zero for each asset.
CREATE FUNCTION ledger_balances() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (
        SELECT sum(b.balance) FROM ledger_balance b
        WHERE b.account_id = NEW.account_id AND b.asset_type = NEW.asset_type AND b.asset_id = NEW.asset_id
    ) <> 0 THEN
        RAISE EXCEPTION 'the ledger of % does not balance for %', NEW.account_id, NEW.asset_id USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER ledger_balances AFTER INSERT OR UPDATE ON ledger_balance
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION ledger_balances();

-- Each execution that counted, and the fill that it is about: a fill counts once, by (venue, trade date, exec id).
CREATE TABLE execution (
    account_id text COLLATE "C" NOT NULL,
    venue text COLLATE "C" NOT NULL,
    exec_id text COLLATE "C" NOT NULL,
    trade_date date NOT NULL,
    root_exec_id text COLLATE "C" NOT NULL,
    root_trade_date date NOT NULL,
    PRIMARY KEY (account_id, venue, exec_id, trade_date)
);

-- Trades as their corrections leave them.
CREATE TABLE trade (
    account_id text COLLATE "C" NOT NULL,
    venue text COLLATE "C" NOT NULL,
    exec_id text COLLATE "C" NOT NULL,
    trade_date date NOT NULL,
    order_id text COLLATE "C" NOT NULL,
    instrument_id text COLLATE "C" NOT NULL,
    side smallint NOT NULL,
    quantity numeric(38, 18) NOT NULL,
    price numeric(38, 18) NOT NULL,
    currency text COLLATE "C" NOT NULL,
    notional numeric(38, 18) NOT NULL,
    generation integer NOT NULL,
    settlement_id uuid,
    busted boolean NOT NULL,
    PRIMARY KEY (account_id, venue, exec_id, trade_date)
);

-- Instructions. `sequence` is the version of the event that made it; `retry` asks for an attempt after something came in.
CREATE TABLE settlement (
    settlement_id uuid PRIMARY KEY,
    account_id text COLLATE "C" NOT NULL,
    sequence integer NOT NULL,
    venue text COLLATE "C" NOT NULL,
    exec_id text COLLATE "C" NOT NULL,
    trade_date date NOT NULL,
    order_id text COLLATE "C" NOT NULL,
    instrument_id text COLLATE "C" NOT NULL,
    securities_amount numeric(38, 18) NOT NULL,
    currency text COLLATE "C" NOT NULL,
    cash_amount numeric(38, 18) NOT NULL,
    settlement_date date NOT NULL,
    cycle_days smallint NOT NULL,
    affirm_time timestamptz NOT NULL,
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL,
    state smallint NOT NULL,
    failure_reason smallint,
    lacking_amount numeric(38, 18) NOT NULL,
    attempt_date date,
    failed_days integer NOT NULL,
    settled_date date,
    reverses_settlement_id uuid,
    retry boolean NOT NULL
) WITH (fillfactor = 70);
CREATE UNIQUE INDEX settlement_of_account ON settlement (account_id, sequence);
-- What the worker looks for, and counts. What settles on no particular day is due before all days.
CREATE INDEX settlement_to_affirm ON settlement (affirm_time) WHERE state = 1;
CREATE INDEX settlement_to_settle ON settlement ((CASE cycle_days WHEN 0 THEN '-infinity'::date ELSE settlement_date END))
    WHERE state IN (2, 4);
CREATE INDEX settlement_open ON settlement (state) WHERE state IN (1, 2, 4);

CREATE TABLE hold (
    hold_id uuid PRIMARY KEY,
    account_id text COLLATE "C" NOT NULL,
    sequence integer NOT NULL,
    asset_type smallint NOT NULL,
    asset_id text COLLATE "C" NOT NULL,
    amount numeric(38, 18) NOT NULL CHECK (amount > 0),
    state smallint NOT NULL,
    comment text NOT NULL,
    principal text NOT NULL,
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL
);
CREATE UNIQUE INDEX hold_of_account ON hold (account_id, sequence);
