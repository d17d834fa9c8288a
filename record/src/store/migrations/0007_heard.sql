-- When each source was last heard of: what lists and metrics say of it after a restart.
CREATE TABLE heard (
    source        TEXT PRIMARY KEY,
    received      INTEGER NOT NULL,
    max_skew_secs INTEGER NOT NULL,
    checksum      INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX heard_unsummed ON heard (checksum) WHERE checksum IS NULL;
