-- Items that detection has seen and no longer holds itself (see items.rs): sets of them, and their pages.
CREATE TABLE item_sets (
    number        INTEGER PRIMARY KEY AUTOINCREMENT,
    partition     INTEGER NOT NULL,
    items         INTEGER NOT NULL,
    page_bits     INTEGER NOT NULL,
    least_index   INTEGER NOT NULL,
    first_time    INTEGER NOT NULL,
    last_time     INTEGER NOT NULL,
    bloom_filter  BLOB NOT NULL,
    checksum      INTEGER
) STRICT;
CREATE INDEX item_sets_unsummed ON item_sets (checksum) WHERE checksum IS NULL;
CREATE TABLE item_pages (
    item_set INTEGER NOT NULL REFERENCES item_sets (number),
    page     INTEGER NOT NULL,
    items    BLOB NOT NULL,
    checksum INTEGER,
    PRIMARY KEY (item_set, page)
) STRICT;
CREATE INDEX item_pages_unsummed ON item_pages (checksum) WHERE checksum IS NULL;
