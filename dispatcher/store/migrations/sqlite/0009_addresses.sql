-- Which living users have an address: "<source>/<instance>/<digest>", empty where there is none. NULL in the row of a deleted
-- user, and in one that an earlier version has written: that is read when somebody first asks.
ALTER TABLE usher_subject ADD COLUMN address TEXT;
CREATE INDEX usher_subject_address ON usher_subject (address) WHERE deleted_at IS NULL;
