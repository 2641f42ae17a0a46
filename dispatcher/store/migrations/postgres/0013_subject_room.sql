-- Half of each page stays free for new versions of its rows: an event of a known user then writes no index, and the space of the
-- versions before is used again without a vacuum. Pages that are full already get this room as their rows change.
ALTER TABLE usher_subject SET (fillfactor = 50);
