-- Every trade that the venue has told, once: each replica writes what it hears, and the feed's place of a message is the same for all.
-- A bust marks what was told under its number before; a correction is a bust and another trade of the same number. Nothing is ever removed.
-- Times are nanoseconds since 1970, as the venue gives them: two trades may lie within a microsecond.
CREATE TABLE trade (
    venue text COLLATE "C" NOT NULL,
    match_number numeric(20, 0) NOT NULL,
    trade_date date NOT NULL,
    instrument_id text COLLATE "C" NOT NULL,
    price numeric(38, 18) NOT NULL CHECK (price > 0),
    quantity numeric(38, 18) NOT NULL CHECK (quantity > 0),
    aggressor smallint NOT NULL,
    time_ns bigint NOT NULL,
    feed_session text COLLATE "C" NOT NULL,
    feed_sequence numeric(20, 0) NOT NULL,
    busted boolean NOT NULL DEFAULT false,
    PRIMARY KEY (venue, match_number, trade_date, feed_session, feed_sequence)
);
CREATE INDEX trade_of_instrument ON trade (venue, instrument_id, time_ns DESC, match_number DESC, feed_session DESC, feed_sequence DESC);
CREATE INDEX trade_of_day ON trade (venue, instrument_id, trade_date);

-- A trade's facts never change, but whether it stands.
REVOKE ALL ON trade FROM :"runtime_role";
GRANT SELECT, INSERT, UPDATE (busted) ON trade TO :"runtime_role";
