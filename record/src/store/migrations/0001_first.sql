-- Times are microseconds since the Unix epoch, UTC. `seq` numbers a feed: rows in the order they were committed.

CREATE TABLE progress (
    partition INTEGER PRIMARY KEY,
    position  INTEGER NOT NULL,
    epoch     INTEGER NOT NULL DEFAULT 0,
    committed INTEGER NOT NULL
) STRICT;

CREATE TABLE state_snapshots (
    partition INTEGER PRIMARY KEY,
    position  INTEGER NOT NULL,
    state     BLOB NOT NULL
) STRICT;

-- One row per batch, under the position after it.
CREATE TABLE state_deltas (
    partition INTEGER NOT NULL,
    position  INTEGER NOT NULL,
    delta     BLOB NOT NULL,
    PRIMARY KEY (partition, position)
) STRICT;

CREATE TABLE findings (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    id          TEXT NOT NULL UNIQUE,
    rule_id     TEXT NOT NULL,
    rule_digest TEXT NOT NULL,
    level       INTEGER NOT NULL,
    state       TEXT NOT NULL,
    title       TEXT NOT NULL,
    time        INTEGER NOT NULL,
    fired       INTEGER NOT NULL,
    retro       INTEGER NOT NULL,
    incident    TEXT,
    committed   INTEGER NOT NULL,
    body        TEXT NOT NULL
) STRICT;
CREATE INDEX findings_by_rule ON findings (rule_id, seq);
CREATE INDEX findings_by_incident ON findings (incident, seq) WHERE incident IS NOT NULL;
CREATE INDEX findings_by_time ON findings (time);

CREATE TABLE incidents (
    id        TEXT PRIMARY KEY,
    status    TEXT NOT NULL,
    is_over   INTEGER NOT NULL,
    level     INTEGER NOT NULL,
    opened    INTEGER NOT NULL,
    committed INTEGER NOT NULL,
    updated   INTEGER NOT NULL,
    body      TEXT NOT NULL
) STRICT;
CREATE INDEX incidents_by_opened ON incidents (opened, id);
CREATE INDEX incidents_open ON incidents (opened, id) WHERE is_over = 0;

CREATE TABLE incident_steps (
    seq       INTEGER PRIMARY KEY AUTOINCREMENT,
    incident  TEXT NOT NULL,
    number    INTEGER NOT NULL,
    verb      TEXT NOT NULL,
    at        INTEGER NOT NULL,
    actor     TEXT NOT NULL,
    note      TEXT,
    finding   TEXT,
    committed INTEGER NOT NULL,
    UNIQUE (incident, number)
) STRICT;

CREATE TABLE outbox (
    seq       INTEGER PRIMARY KEY AUTOINCREMENT,
    id        TEXT NOT NULL UNIQUE,
    kind      TEXT NOT NULL,
    incident  TEXT,
    at        INTEGER NOT NULL,
    body      TEXT NOT NULL,
    committed INTEGER NOT NULL
) STRICT;

CREATE TABLE deliveries (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    target          TEXT NOT NULL,
    message         TEXT NOT NULL REFERENCES outbox (id),
    message_seq     INTEGER NOT NULL,
    incident        TEXT,
    state           TEXT NOT NULL CHECK (state IN ('queued', 'retry', 'delivered', 'dead')),
    attempts        INTEGER NOT NULL DEFAULT 0,
    queued_at       INTEGER NOT NULL,
    next_at         INTEGER NOT NULL,
    last_at         INTEGER,
    status          INTEGER,
    latency_ms      INTEGER,
    response_sha256 TEXT,
    response_head   TEXT,
    error           TEXT,
    delivered_at    INTEGER,
    UNIQUE (target, message)
) STRICT;
CREATE INDEX deliveries_pending ON deliveries (target, message_seq) WHERE state IN ('queued', 'retry');
CREATE INDEX deliveries_order ON deliveries (target, incident, message_seq)
    WHERE incident IS NOT NULL AND state IN ('queued', 'retry');

-- Every change of a delivery, the receipt of each attempt included.
CREATE TABLE delivery_changes (
    seq      INTEGER PRIMARY KEY AUTOINCREMENT,
    delivery INTEGER NOT NULL REFERENCES deliveries (id),
    at       INTEGER NOT NULL,
    body     TEXT NOT NULL
) STRICT;

CREATE TABLE duplicates (
    partition    INTEGER NOT NULL,
    record_index INTEGER NOT NULL,
    first_index  INTEGER NOT NULL,
    PRIMARY KEY (partition, record_index)
) STRICT, WITHOUT ROWID;

CREATE TABLE dead_letters (
    seq          INTEGER PRIMARY KEY AUTOINCREMENT,
    partition    INTEGER NOT NULL,
    record_index INTEGER NOT NULL,
    source       TEXT NOT NULL,
    received     INTEGER NOT NULL,
    reason       TEXT NOT NULL,
    UNIQUE (partition, record_index)
) STRICT;
CREATE INDEX dead_letters_by_source ON dead_letters (source, seq);

-- The latest version of each window; `seq` is renewed by every change.
CREATE TABLE source_windows (
    source  TEXT NOT NULL,
    start   INTEGER NOT NULL,
    "end"   INTEGER NOT NULL,
    seq     INTEGER NOT NULL UNIQUE,
    changed INTEGER NOT NULL,
    body    TEXT NOT NULL,
    PRIMARY KEY (source, start)
) STRICT, WITHOUT ROWID;
CREATE INDEX source_windows_by_start ON source_windows (start, source);

CREATE TABLE rule_texts (
    digest TEXT PRIMARY KEY,
    id     TEXT NOT NULL,
    title  TEXT NOT NULL,
    file   TEXT NOT NULL,
    body   TEXT NOT NULL,
    stored INTEGER NOT NULL
) STRICT;
CREATE INDEX rule_texts_by_id ON rule_texts (id, stored);

CREATE TABLE packs (
    seq       INTEGER PRIMARY KEY AUTOINCREMENT,
    pack      TEXT NOT NULL UNIQUE,
    framework TEXT NOT NULL,
    "from"    INTEGER NOT NULL,
    "to"      INTEGER NOT NULL,
    as_of     INTEGER NOT NULL,
    path      TEXT NOT NULL,
    digest    TEXT NOT NULL,
    created   INTEGER NOT NULL,
    body      TEXT NOT NULL
) STRICT;

-- How far a reader of a feed has got, under the reader's name.
CREATE TABLE cursors (
    name TEXT PRIMARY KEY,
    seq  INTEGER NOT NULL
) STRICT;
