// Stripe's SDK asks its double: each request of Usher's operations and look-ups, and the refusals as the SDK's errors.

import Stripe from "stripe";
import { assert, at, during, refusal, unique } from "./support.js";

const { hostname, port } = new URL(at("stripe"));
// The SDK cannot be told a path, so the double's stands in front of what it asks for.
const http = Stripe.createFetchHttpClient((url, options) => {
  const { pathname, search } = new URL(url);
  return fetch(`${at("stripe")}${pathname}${search}`, options);
});
const client = (key) =>
  new Stripe(key, { host: hostname, port, protocol: "http", httpClient: http, maxNetworkRetries: 0, telemetry: false });
const stripe = client("sk_test_lab");
const user = unique("user_");
const price = "price_lab";

const key = { idempotencyKey: unique("usher/") };
const made = { email: "dana@work.test", name: "Dana Doe", phone: "+12015550123", metadata: { clerk_user_id: user } };
const customer = await stripe.customers.create(made, key);
assert.deepEqual([customer.object, customer.email, customer.metadata.clerk_user_id], ["customer", made.email, user]);
assert.equal((await stripe.customers.create(made, key)).id, customer.id, "the same key makes the same customer");
const reused = await refusal(() => stripe.customers.create({ ...made, name: "Other" }, key));
assert.ok(reused instanceof Stripe.errors.StripeIdempotencyError, reused.type);

const renamed = await stripe.customers.update(customer.id, { email: "new@work.test", name: "Dana Roe", metadata: { plan: "pro" } });
assert.deepEqual([renamed.email, renamed.name, renamed.metadata.plan], ["new@work.test", "Dana Roe", "pro"]);
assert.equal(renamed.metadata.clerk_user_id, user, "metadata are merged");

const trial = {
  customer: customer.id,
  items: [{ price }],
  trial_period_days: 14,
  trial_settings: { end_behavior: { missing_payment_method: "cancel" } },
  payment_settings: { save_default_payment_method: "on_subscription" },
  metadata: { clerk_user_id: user },
};
const subscription = await stripe.subscriptions.create(trial, { idempotencyKey: unique("usher/") });
assert.deepEqual([subscription.object, subscription.status, subscription.customer], ["subscription", "trialing", customer.id]);
assert.equal(subscription.items.data[0].price.id, price);

const listed = await stripe.subscriptions.list({ customer: customer.id, status: "all", limit: 100 });
assert.deepEqual(listed.data.map((it) => it.id), [subscription.id]);
const found = await stripe.customers.search({ query: `metadata['clerk_user_id']:'${user}'`, limit: 100 });
assert.ok(found.data.every((it) => it.metadata.clerk_user_id === user));
const newest = await stripe.customers.list({ limit: 100 });
assert.ok(newest.data.some((it) => it.id === customer.id));

const cancelled = await stripe.subscriptions.cancel(subscription.id);
assert.equal(cancelled.status, "canceled");
const twice = await refusal(() => stripe.subscriptions.cancel(subscription.id));
assert.deepEqual([twice.statusCode, twice.code], [404, "resource_missing"], "what is cancelled is gone");

assert.equal((await stripe.customers.del(customer.id)).deleted, true);
const gone = await refusal(() => stripe.customers.del(customer.id));
assert.ok(gone instanceof Stripe.errors.StripeInvalidRequestError, gone.type);
assert.equal(gone.code, "resource_missing");
assert.equal((await stripe.customers.retrieve(customer.id)).deleted, true, "who is deleted is shown as that");
const tooLate = await refusal(() => stripe.customers.update(customer.id, { name: "Dana" }));
assert.deepEqual([tooLate.statusCode, tooLate.code], [404, "resource_missing"], "who is deleted cannot be updated");
const late = await refusal(() => stripe.subscriptions.create({ customer: customer.id, items: [{ price }] }));
assert.equal(late.code, "resource_missing", "who is deleted has no trial");

for (const [what, ask, kind] of [
  ["no such customer", () => stripe.subscriptions.create({ ...trial, customer: "cus_none" }), "StripeInvalidRequestError"],
  ["731 days", () => stripe.subscriptions.create({ ...trial, trial_period_days: 731 }), "StripeInvalidRequestError"],
  ["no such key", () => client("sk").customers.create(made), "StripeAuthenticationError"],
]) {
  const error = await refusal(ask);
  assert.ok(error instanceof Stripe.errors[kind], `${what}: ${error.type}`);
}
for (const [status, kind] of [[429, "StripeRateLimitError"], [401, "StripeAuthenticationError"], [503, "StripeAPIError"]]) {
  const error = await during("stripe", { status }, () => refusal(() => stripe.customers.create(made)));
  assert.ok(error instanceof Stripe.errors[kind], `${status}: ${error.type}`);
}
