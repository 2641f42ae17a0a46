-- The story of each run: what was attempted and what came of it, a JSON object a line. The destinations' messages stand apart,
-- in lines of their own: they are content, and go when the body goes, as does the request of the last attempt that failed.
ALTER TABLE usher_open_run ADD COLUMN story   TEXT;
ALTER TABLE usher_open_run ADD COLUMN answers TEXT;
ALTER TABLE usher_open_run ADD COLUMN sent    BLOB;
ALTER TABLE usher_ended_run ADD COLUMN story   TEXT;
ALTER TABLE usher_ended_run ADD COLUMN answers TEXT;
ALTER TABLE usher_ended_run ADD COLUMN sent    BLOB;

DROP VIEW usher_effect;
DROP VIEW usher_run;
CREATE VIEW usher_run AS
SELECT a.*, substr(event_ref, 1, instr(event_ref, '/') - 1) AS source,
       substr(substr(event_ref, instr(event_ref, '/') + 1), 1, instr(substr(event_ref, instr(event_ref, '/') + 1), '/') - 1) AS instance,
       substr(substr(event_ref, instr(event_ref, '/') + 1), instr(substr(event_ref, instr(event_ref, '/') + 1), '/') + 1) AS event,
       substr(substr(subject, instr(subject, '/') + 1), instr(substr(subject, instr(subject, '/') + 1), '/') + 1) AS key
FROM (
    SELECT
    flow, event_ref, subject, partition, position, origin, type, occurred_at, received_at, admitted_at, digest,
    provenance, body, before_event, expires_at, flow_version, state, step, destination, pass, attempts, spent,
    unanswered, generation, deaths, letter, tried_since, asked_at, failed_at, claimed_at, claimed_until, changed_at,
    due_at, awaits_news, cancel_asked, request, results, reason, error, note, effects, story, answers, sent, NULL AS ended_at
    FROM usher_open_run
    UNION ALL
    SELECT
    flow, event_ref, subject, partition, position, origin, type, occurred_at, received_at, admitted_at, digest,
    provenance, body, before_event, expires_at, flow_version, state, step, destination, pass, attempts, 0 AS spent,
    0 AS unanswered, generation, deaths, letter, NULL AS tried_since, asked_at, failed_at, NULL AS claimed_at,
    NULL AS claimed_until, NULL AS changed_at, NULL AS due_at, 0 AS awaits_news, 0 AS cancel_asked, request, results,
    reason, error, note, effects, story, answers, sent, ended_at
    FROM usher_ended_run) AS a;
CREATE VIEW usher_effect AS
SELECT r.flow, r.event_ref, e.value ->> 'pass' AS pass, e.value ->> 'step' AS step, e.value ->> 'name' AS step_name,
       e.value ->> 'connector' AS connector, e.value ->> 'id' AS id, e.value ->> 'at' AS at
FROM usher_run r, json_each(r.effects) AS e;
