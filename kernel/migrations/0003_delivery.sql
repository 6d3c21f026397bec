-- How far a service's relay has told its own log, and how far its projections have read other services' logs.

CREATE TABLE relay_progress (
    topic text COLLATE "C" NOT NULL,
    tx bigint NOT NULL,
    position bigint NOT NULL,
    sequence bigint NOT NULL,
    CONSTRAINT relay_progress_key PRIMARY KEY (topic),
    CONSTRAINT relay_progress_not_negative CHECK (tx >= 0 AND position >= 0 AND sequence >= 0)
) WITH (fillfactor = 50);

-- Written in the transaction of the read model, so the two never disagree.
CREATE TABLE projection_cursor (
    projection text COLLATE "C" NOT NULL,
    source text COLLATE "C" NOT NULL,
    tx bigint NOT NULL,
    position bigint NOT NULL,
    CONSTRAINT projection_cursor_key PRIMARY KEY (projection, source),
    CONSTRAINT projection_cursor_not_negative CHECK (tx >= 0 AND position >= 0)
) WITH (fillfactor = 50);

-- The inbox: the last event of each stream that a projection has applied. Versions are contiguous, so one row stands for all before it.
CREATE TABLE projection_inbox (
    projection text COLLATE "C" NOT NULL,
    source text COLLATE "C" NOT NULL,
    stream_id text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    CONSTRAINT projection_inbox_key PRIMARY KEY (projection, source, stream_id),
    CONSTRAINT projection_inbox_version CHECK (version > 0)
) WITH (fillfactor = 70);

REVOKE ALL ON relay_progress, projection_cursor, projection_inbox FROM :"runtime_role";
GRANT SELECT, INSERT, UPDATE ON relay_progress, projection_cursor, projection_inbox TO :"runtime_role";
