-- What reports are made of, copied from other services' logs and never changed, and the reports themselves.
-- (tx, position) is the place in the source's log. A report reads what stands at or below its position and nothing else, so rows that are
-- folded in later never show.

-- Every event of every order. `view` is the order after it; executions also say which trade they belong to and what counted before them.
CREATE TABLE order_event (
    tx bigint NOT NULL,
    position bigint NOT NULL,
    order_id uuid NOT NULL,
    version integer NOT NULL,
    account_id text COLLATE "C" NOT NULL,
    type text COLLATE "C" NOT NULL,
    payload bytea NOT NULL,
    view text NOT NULL,
    event_time timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL,
    execution boolean NOT NULL,
    trade_date date,
    transact_time timestamptz,
    trade_venue text COLLATE "C",
    trade_root_date date,
    trade_exec_id text COLLATE "C",
    before_quantity numeric(38, 18),
    before_price numeric(38, 18),
    CONSTRAINT order_event_place PRIMARY KEY (tx, position),
    CONSTRAINT order_event_version UNIQUE (order_id, version),
    CONSTRAINT order_event_execution CHECK (
        execution = (
            trade_date IS NOT NULL AND transact_time IS NOT NULL AND trade_venue IS NOT NULL AND trade_root_date IS NOT NULL
            AND trade_exec_id IS NOT NULL AND before_quantity IS NOT NULL AND before_price IS NOT NULL
        )
    )
);
CREATE INDEX order_event_of_account ON order_event (account_id, tx, position);
CREATE INDEX execution_of_account ON order_event (account_id, tx, position) WHERE execution;
CREATE INDEX execution_of_order ON order_event (order_id, version) WHERE execution;

CREATE TABLE account_version (
    account_id text COLLATE "C" NOT NULL,
    tx bigint NOT NULL,
    position bigint NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    CONSTRAINT account_version_place PRIMARY KEY (account_id, tx, position)
);

CREATE TABLE instrument_version (
    instrument_id text COLLATE "C" NOT NULL,
    tx bigint NOT NULL,
    position bigint NOT NULL,
    currency text COLLATE "C" NOT NULL,
    CONSTRAINT instrument_version_place PRIMARY KEY (instrument_id, tx, position)
);

-- What happened to settlement instructions; (venue, trade_date, exec_id) is the execution that the trade began with.
CREATE TABLE settlement_event (
    tx bigint NOT NULL,
    position bigint NOT NULL,
    settlement_id text COLLATE "C" NOT NULL,
    venue text COLLATE "C" NOT NULL,
    trade_date date NOT NULL,
    exec_id text COLLATE "C" NOT NULL,
    settlement_date date NOT NULL,
    state text COLLATE "C" NOT NULL,
    CONSTRAINT settlement_event_place PRIMARY KEY (tx, position)
);
CREATE INDEX settlement_event_of_trade ON settlement_event (venue, trade_date, exec_id, tx, position);
CREATE INDEX settlement_event_of_instruction ON settlement_event (settlement_id, tx, position);

-- Reports. `parameters` is a serialized trademesh.reporting.v1.ReportParameters, `error` a google.rpc.Status. A replica that works on one
-- holds it until `leased_until` by this server's clock; `epoch` rises with every beginning and fences the replica before.
CREATE TABLE report (
    report_id uuid PRIMARY KEY,
    tenant text COLLATE "C" NOT NULL,
    principal text COLLATE "C" NOT NULL,
    request_id uuid NOT NULL,
    command_hash bytea NOT NULL,
    kind smallint NOT NULL,
    parameters bytea NOT NULL,
    state smallint NOT NULL,
    epoch integer NOT NULL DEFAULT 0,
    leased_until timestamptz,
    row_count bigint NOT NULL DEFAULT 0,
    content_bytes bigint NOT NULL DEFAULT 0,
    sha256 text COLLATE "C" NOT NULL DEFAULT '',
    error bytea NOT NULL DEFAULT '',
    create_time timestamptz NOT NULL,
    end_time timestamptz,
    expire_time timestamptz,
    removed boolean NOT NULL DEFAULT false,
    deleted boolean NOT NULL DEFAULT false,
    CONSTRAINT report_request UNIQUE (tenant, principal, request_id),
    CONSTRAINT report_state CHECK (state BETWEEN 1 AND 5)
) WITH (fillfactor = 70);
CREATE INDEX report_of_principal ON report (tenant, principal, report_id DESC);
CREATE INDEX report_open ON report (create_time) WHERE state IN (1, 2);
CREATE INDEX report_expiring ON report (expire_time) WHERE NOT removed AND expire_time IS NOT NULL;

-- The content, as the replica of that epoch wrote it, in parts of at most 64 KiB.
CREATE TABLE report_content (
    report_id uuid NOT NULL REFERENCES report,
    epoch integer NOT NULL,
    number integer NOT NULL,
    data bytea STORAGE EXTERNAL NOT NULL,
    CONSTRAINT report_content_key PRIMARY KEY (report_id, epoch, number),
    CONSTRAINT report_content_size CHECK (octet_length(data) BETWEEN 1 AND 65536)
);

CREATE FUNCTION reporting_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'what reports are made of is never changed: % on % refused', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER order_event_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON order_event
    FOR EACH STATEMENT EXECUTE FUNCTION reporting_refuse_change();
CREATE TRIGGER account_version_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON account_version
    FOR EACH STATEMENT EXECUTE FUNCTION reporting_refuse_change();
CREATE TRIGGER instrument_version_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON instrument_version
    FOR EACH STATEMENT EXECUTE FUNCTION reporting_refuse_change();
CREATE TRIGGER settlement_event_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON settlement_event
    FOR EACH STATEMENT EXECUTE FUNCTION reporting_refuse_change();

REVOKE ALL ON order_event, account_version, instrument_version, settlement_event, report, report_content FROM :"runtime_role";
GRANT SELECT, INSERT ON order_event, account_version, instrument_version, settlement_event TO :"runtime_role";
GRANT SELECT, INSERT, UPDATE ON report TO :"runtime_role";
GRANT SELECT, INSERT, DELETE ON report_content TO :"runtime_role";
