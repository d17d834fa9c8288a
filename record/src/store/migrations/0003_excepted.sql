-- Matches that an exception let go: what a rule would have found.
CREATE TABLE excepted (
    seq           INTEGER PRIMARY KEY AUTOINCREMENT,
    filter        TEXT NOT NULL,
    filter_digest TEXT NOT NULL,
    rule          TEXT NOT NULL,
    rule_digest   TEXT NOT NULL,
    event         TEXT NOT NULL,
    time          INTEGER NOT NULL,
    received      INTEGER NOT NULL,
    committed     INTEGER NOT NULL,
    UNIQUE (filter, rule, event)
) STRICT;
