-- The first wait or pause that ends, of each partition. With the time as its first column, the index had to be read through
-- the waits of all flows. Its first columns are expressions, so that only those who name them use it.
DROP INDEX usher_open_run_due;
CREATE INDEX usher_open_run_due ON usher_open_run ((flow || ''), (partition + 0), wakes_at) WHERE wakes_at IS NOT NULL;
