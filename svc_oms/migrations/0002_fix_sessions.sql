-- FIX sessions to venues: the next numbers, and every application message that was given one, so that a crash is a gap which the peer repairs.
CREATE TABLE fix_session (
    session text COLLATE "C" NOT NULL,
    next_in bigint NOT NULL,
    next_out bigint NOT NULL,
    CONSTRAINT fix_session_key PRIMARY KEY (session),
    CONSTRAINT fix_session_numbers CHECK (next_in > 0 AND next_out > 0)
) WITH (fillfactor = 50);

CREATE TABLE fix_message (
    session text COLLATE "C" NOT NULL,
    sequence bigint NOT NULL,
    msg_type text COLLATE "C" NOT NULL,
    order_id text COLLATE "C" NOT NULL,
    body bytea NOT NULL,
    sent_time text COLLATE "C" NOT NULL,
    CONSTRAINT fix_message_key PRIMARY KEY (session, sequence)
);

REVOKE ALL ON fix_session, fix_message FROM :"runtime_role";
GRANT SELECT, INSERT, UPDATE ON fix_session TO :"runtime_role";
GRANT SELECT, INSERT, DELETE ON fix_message TO :"runtime_role";
