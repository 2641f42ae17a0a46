-- The story of each run: what was attempted and what came of it, a JSON object a line. The destinations' messages stand apart,
-- in lines of their own: they are content, and go when the body goes, as does the request of the last attempt that failed.
ALTER TABLE usher_open_run ADD COLUMN story   TEXT;
ALTER TABLE usher_open_run ADD COLUMN answers TEXT;
ALTER TABLE usher_open_run ADD COLUMN sent    BYTEA;
ALTER TABLE usher_ended_run ADD COLUMN story   TEXT;
ALTER TABLE usher_ended_run ADD COLUMN answers TEXT;
ALTER TABLE usher_ended_run ADD COLUMN sent    BYTEA;

DROP VIEW usher_effect;
DROP VIEW usher_run;
CREATE VIEW usher_run AS
SELECT a.*, split_part(event_ref, '/', 1) AS source, split_part(event_ref, '/', 2) AS instance,
       substr(event_ref, length(split_part(event_ref, '/', 1)) + length(split_part(event_ref, '/', 2)) + 3) AS event,
       substr(subject, length(split_part(subject, '/', 1)) + length(split_part(subject, '/', 2)) + 3) AS key
FROM (
    SELECT
    flow, event_ref, subject, partition, position, origin, type, occurred_at, received_at, admitted_at, digest,
    provenance, body, before_event, expires_at, flow_version, state, step, destination, pass, attempts, spent,
    unanswered, generation, deaths, letter, tried_since, asked_at, failed_at, claimed_at, claimed_until, changed_at,
    due_at, awaits_news, cancel_asked, request, results, reason, error, note, effects, story, answers, sent, NULL::bigint AS ended_at
    FROM usher_open_run
    UNION ALL
    SELECT
    flow, event_ref, subject, partition, position, origin, type, occurred_at, received_at, admitted_at, digest,
    provenance, body, before_event, expires_at, flow_version, state, step, destination, pass, attempts, 0::bigint AS spent,
    0::bigint AS unanswered, generation, deaths, letter, NULL::bigint AS tried_since, asked_at, failed_at,
    NULL::bigint AS claimed_at, NULL::bigint AS claimed_until, NULL::bigint AS changed_at, NULL::bigint AS due_at,
    0::bigint AS awaits_news, 0::bigint AS cancel_asked, request, results, reason, error, note, effects, story, answers, sent, ended_at
    FROM usher_ended_run) AS a;
CREATE VIEW usher_effect AS
SELECT r.flow, r.event_ref, (e ->> 'pass')::bigint AS pass, (e ->> 'step')::bigint AS step, e ->> 'name' AS step_name,
       e ->> 'connector' AS connector, e ->> 'id' AS id, (e ->> 'at')::bigint AS at
FROM usher_run r, json_array_elements(r.effects::json) AS e;
