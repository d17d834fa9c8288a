-- SHA-256 of what a restart goes on with; null in rows of version 1.
ALTER TABLE state_snapshots ADD COLUMN digest BLOB;
ALTER TABLE state_deltas ADD COLUMN digest BLOB;
