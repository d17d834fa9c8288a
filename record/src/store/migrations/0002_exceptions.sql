-- What exceptions let go of: a count by exception and rule, for as long as the store lives.
CREATE TABLE exceptions_used (
    filter  TEXT NOT NULL,
    rule    TEXT NOT NULL,
    matches INTEGER NOT NULL,
    first   INTEGER NOT NULL,
    last    INTEGER NOT NULL,
    PRIMARY KEY (filter, rule)
) STRICT;
