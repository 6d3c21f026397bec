-- Leases: what must have one owner. Time is this server's clock; epoch rises with every takeover and fences the old owner's writes.
CREATE TABLE lease (
    name text COLLATE "C" NOT NULL,
    owner text COLLATE "C" NOT NULL,
    epoch bigint NOT NULL,
    expires_at timestamptz NOT NULL,
    CONSTRAINT lease_key PRIMARY KEY (name),
    CONSTRAINT lease_epoch CHECK (epoch > 0)
) WITH (fillfactor = 50);

REVOKE ALL ON lease FROM :"runtime_role";
GRANT SELECT, INSERT, UPDATE ON lease TO :"runtime_role";
