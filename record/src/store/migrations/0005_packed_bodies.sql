-- Bodies may be compressed (see body.rs): they are bytes now. Rows keep what they hold, and their checksums.
CREATE TABLE findings_5 (
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
    body        BLOB NOT NULL,
    checksum    INTEGER
) STRICT;
INSERT INTO findings_5
SELECT seq, id, rule_id, rule_digest, level, state, title, time, fired, retro, incident, committed, CAST(body AS BLOB), checksum
FROM findings;
DROP TABLE findings;
ALTER TABLE findings_5 RENAME TO findings;
CREATE INDEX findings_by_rule ON findings (rule_id, seq);
CREATE INDEX findings_by_incident ON findings (incident, seq) WHERE incident IS NOT NULL;
CREATE INDEX findings_by_time ON findings (time);
CREATE INDEX findings_unsummed ON findings (checksum) WHERE checksum IS NULL;

CREATE TABLE incidents_5 (
    id        TEXT PRIMARY KEY,
    status    TEXT NOT NULL,
    is_over   INTEGER NOT NULL,
    level     INTEGER NOT NULL,
    opened    INTEGER NOT NULL,
    committed INTEGER NOT NULL,
    updated   INTEGER NOT NULL,
    body      BLOB NOT NULL,
    checksum  INTEGER
) STRICT;
INSERT INTO incidents_5
SELECT id, status, is_over, level, opened, committed, updated, CAST(body AS BLOB), checksum FROM incidents;
DROP TABLE incidents;
ALTER TABLE incidents_5 RENAME TO incidents;
CREATE INDEX incidents_by_opened ON incidents (opened, id);
CREATE INDEX incidents_open ON incidents (opened, id) WHERE is_over = 0;
CREATE INDEX incidents_unsummed ON incidents (checksum) WHERE checksum IS NULL;

CREATE TABLE outbox_5 (
    seq       INTEGER PRIMARY KEY AUTOINCREMENT,
    id        TEXT NOT NULL UNIQUE,
    kind      TEXT NOT NULL,
    incident  TEXT,
    at        INTEGER NOT NULL,
    body      BLOB NOT NULL,
    committed INTEGER NOT NULL,
    checksum  INTEGER
) STRICT;
INSERT INTO outbox_5 SELECT seq, id, kind, incident, at, CAST(body AS BLOB), committed, checksum FROM outbox;
DROP TABLE outbox;
ALTER TABLE outbox_5 RENAME TO outbox;
CREATE INDEX outbox_unsummed ON outbox (checksum) WHERE checksum IS NULL;

CREATE TABLE delivery_changes_5 (
    seq      INTEGER PRIMARY KEY AUTOINCREMENT,
    delivery INTEGER NOT NULL REFERENCES deliveries (id),
    at       INTEGER NOT NULL,
    body     BLOB NOT NULL,
    checksum INTEGER
) STRICT;
INSERT INTO delivery_changes_5 SELECT seq, delivery, at, CAST(body AS BLOB), checksum FROM delivery_changes;
DROP TABLE delivery_changes;
ALTER TABLE delivery_changes_5 RENAME TO delivery_changes;
CREATE INDEX delivery_changes_unsummed ON delivery_changes (checksum) WHERE checksum IS NULL;
