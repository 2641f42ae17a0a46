// Novu's SDK asks its double, and validates every answer: triggers, the notifications of a transaction, the refusals.

import { Novu } from "@novu/api";
import * as errors from "@novu/api/models/errors/index.js";
import { assert, at, during, refusal, unique } from "./support.js";

const novu = new Novu({ secretKey: "lab", serverURL: at("novu"), retryConfig: { strategy: "none" } });
const subscriberId = unique("user_");
const trigger = (over, key) =>
  novu.trigger(
    {
      workflowId: "welcome",
      to: { subscriberId, email: "dana@work.test", phone: "+12015550123", firstName: "Dana", lastName: "Doe" },
      payload: { plan: "trial", seats: 3, tags: ["a"] },
      ...over,
    },
    key,
  );

const transactionId = unique("usher/");
const { result } = await trigger({ transactionId }, transactionId);
assert.deepEqual([result.acknowledged, result.status, result.transactionId], [true, "processed", transactionId]);
assert.equal((await trigger({ transactionId }, transactionId)).result.transactionId, transactionId);

const listed = await novu.notifications.list({ transactionId });
assert.deepEqual(listed.result.data.map((it) => it.transactionId), [transactionId]);

assert.equal((await trigger({ workflowId: "trigger_not_active" })).result.status, "trigger_not_active");
assert.equal((await trigger({ to: [subscriberId, { subscriberId: unique("user_") }] })).result.status, "processed");

const nobody = await refusal(() => trigger({ to: { subscriberId: "" } }));
assert.ok(nobody instanceof errors.ValidationErrorDto, `${nobody}`);
// The server gives this one no `errors`, which the SDK looks for in every 422.
const missing = await refusal(() => trigger({ workflowId: "missing" }));
assert.ok(missing instanceof errors.NovuError, `${missing}`);
assert.equal(missing.statusCode, 422);
assert.match(missing.body, /workflow_not_found/);
for (const status of [401, 409, 429, 503]) {
  const error = await during("novu", { status }, () => refusal(() => trigger({})));
  assert.ok(error instanceof errors.NovuError && !(error instanceof errors.ResponseValidationError), `${status}: ${error}`);
  assert.equal(error.statusCode, status);
}

// Subscribers, as `put_subscriber` and `delete_subscriber` ask for them.
const other = unique("user_");
const absent = await refusal(() => novu.subscribers.patch({ email: "dana@work.test" }, other));
assert.equal(absent.statusCode, 404);
const created = await novu.subscribers.create({ subscriberId: other, email: "dana@work.test", data: { seats: 3 } });
assert.deepEqual([created.result.subscriberId, created.result.email], [other, "dana@work.test"]);
const patched = await novu.subscribers.patch({ email: null, phone: "+12015551123", timezone: "Europe/Berlin" }, other);
assert.deepEqual([patched.result.phone, patched.result.timezone, patched.result.data], ["+12015551123", "Europe/Berlin", { seats: 3 }]);
assert.equal((await novu.subscribers.retrieve(other)).result.email ?? null, null);
assert.equal((await novu.subscribers.retrieve(subscriberId)).result.firstName, "Dana", "a trigger brings its subscriber along");
assert.equal((await novu.subscribers.delete(other)).result.acknowledged, true);
assert.equal((await refusal(() => novu.subscribers.delete(other))).statusCode, 404);
