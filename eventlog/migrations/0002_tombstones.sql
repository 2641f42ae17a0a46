-- 1 if the record is a tombstone, which removes the earlier records of its key.
ALTER TABLE record ADD COLUMN erases INTEGER NOT NULL DEFAULT 0;
