// Algolia's SDK asks its double: the guarded partial update, a deletion, and the refusals as the SDK's errors.

import { algoliasearch } from "algoliasearch";
import { assert, at, during, refusal, unique } from "./support.js";

const { host, pathname } = new URL(at("algolia"));
// The SDK asks hosts, not paths, so the double's path stands in front of what it asks for.
const hosts = [{ url: `${host}${pathname}`, protocol: "http", accept: "readWrite" }];
const client = (key) => algoliasearch("LABLABLAB0", key, { hosts });
const algolia = client("lab");
const indexName = "users";
const objectID = unique("user_");
const save = (name, at) =>
  algolia.partialUpdateObject({
    indexName,
    objectID,
    attributesToUpdate: { name, usher_updated_at: { _operation: "IncrementSet", value: at } },
    createIfNotExists: true,
  });

const saved = await save("Dana", 10);
assert.equal(saved.objectID, objectID);
assert.equal(typeof saved.taskID, "number");
await algolia.waitForTask({ indexName, taskID: saved.taskID });
await save("older", 5);
assert.equal((await algolia.getObject({ indexName, objectID })).name, "Dana", "an older state counts nothing");
await save("Dana Doe", 20);
assert.equal((await algolia.getObject({ indexName, objectID })).name, "Dana Doe");

for (let again = 0; again < 2; again += 1) {
  const deleted = await algolia.deleteObject({ indexName, objectID });
  assert.equal(typeof deleted.taskID, "number", "also where there is no such record");
}
const gone = await refusal(() => algolia.getObject({ indexName, objectID }));
assert.deepEqual([gone.name, gone.status], ["ApiError", 404]);
for (const status of [403, 429, 400]) {
  const error = await during("algolia", { status }, () => refusal(() => save("x", 30)));
  assert.deepEqual([error.name, error.status], ["ApiError", status]);
}
