// Webhooks that the senders' own libraries sign reach a running ingest: what they made is accepted, and what was changed
// on the way is refused. Nylas' library signs nothing, so its webhooks are signed as Nylas' documentation says.

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { gzipSync } from "node:zlib";
import { Resend } from "resend";
import { Webhook } from "standardwebhooks";
import Stripe from "stripe";

const ingest = process.env.USHER_TEST_INGEST;
const secret = process.env.USHER_TEST_SECRET;
assert.ok(ingest && secret, "USHER_TEST_INGEST and USHER_TEST_SECRET name a running ingest and its secret");

async function post(source, headers, body) {
  const answer = await fetch(`${ingest}/webhooks/${source}`, { method: "POST", headers, body });
  return answer.status;
}

const seconds = () => Math.floor(Date.now() / 1000);
const unique = (prefix) => `${prefix}${Date.now().toString(36)}${Math.random().toString(36).slice(2, 10)}`;
const user = "user_3Bqu1oNFV2Eo8dROJDkXzQSPQXY";

// Stripe: the header of the library, which also accepts it.
{
  const stripe = new Stripe("sk_test_lab");
  const object = { id: "sub_1", object: "subscription", customer: "cus_1", status: "trialing", metadata: { clerk_user_id: user } };
  const event = { id: unique("evt_"), object: "event", created: seconds(), type: "customer.subscription.created", data: { object } };
  const payload = JSON.stringify(event, null, 2);
  const timestamp = seconds();
  const header = stripe.webhooks.generateTestHeaderString({ payload, secret, timestamp });
  assert.equal(stripe.webhooks.constructEvent(payload, header, secret).id, event.id);
  assert.equal(await post("stripe", { "stripe-signature": header }, payload), 204, "Stripe's");
  assert.equal(await post("stripe", { "stripe-signature": header }, payload.replace("trialing", "active")), 401, "changed");
  const foreign = stripe.webhooks.generateTestHeaderString({ payload, secret: `${secret}x`, timestamp });
  assert.equal(await post("stripe", { "stripe-signature": foreign }, payload), 401, "another secret");
  const rotated = `${foreign},${header.split(",")[1]}`;
  assert.equal(await post("stripe", { "stripe-signature": rotated }, payload), 204, "one of two signatures");
  const late = stripe.webhooks.generateTestHeaderString({ payload, secret, timestamp: seconds() - 400 });
  assert.equal(await post("stripe", { "stripe-signature": late }, payload), 401, "too old");
  assert.equal(await post("stripe", {}, payload), 400, "not signed");
}

// Resend and any sender of Standard Webhooks: signed by the library of the standard, which Resend's own verifies with.
{
  const webhook = new Webhook(secret);
  const sign = (id, payload, names) => {
    const now = new Date();
    const values = [id, String(Math.floor(now.getTime() / 1000)), webhook.sign(id, now, payload)];
    return Object.fromEntries(names.map((name, at) => [name, values[at]]));
  };
  const svix = ["svix-id", "svix-timestamp", "svix-signature"];
  const standard = ["webhook-id", "webhook-timestamp", "webhook-signature"];
  const clicked = { type: "email.clicked", created_at: new Date().toISOString(), data: { email_id: "m1", tags: { clerk_user_id: user } } };
  const placed = { type: "order.placed", timestamp: new Date().toISOString(), data: { user_id: user, name: "Zoë \u2028 😀" } };
  for (const [source, event, names] of [["resend", clicked, svix], ["acme", placed, standard], ["acme", placed, svix]]) {
    const payload = JSON.stringify(event);
    const id = unique("msg_");
    const headers = sign(id, payload, names);
    if (source === "resend") {
      const [, timestamp, signature] = names.map((name) => headers[name]);
      const read = new Resend("re_lab").webhooks.verify({ payload, headers: { id, timestamp, signature }, webhookSecret: secret });
      assert.equal(read.type, event.type, "Resend's own library accepts it");
    }
    assert.equal(await post(source, headers, payload), 204, source);
    assert.equal(await post(source, headers, payload.replace(user, "user_other")), 401, `${source}, changed`);
    assert.equal(await post(source, { ...headers, [names[0]]: unique("msg_") }, payload), 401, `${source}, another id`);
    assert.equal(await post(source === "acme" ? "nobody" : source, {}, payload), source === "acme" ? 404 : 400);
  }
}

// Nylas: the challenge, then a plain and a compressed message.
{
  const challenge = unique("c-");
  const answer = await fetch(`${ingest}/webhooks/nylas?challenge=${challenge}`);
  assert.deepEqual([answer.status, await answer.text()], [200, challenge]);
  assert.equal((await fetch(`${ingest}/webhooks/stripe?challenge=${challenge}`)).status, 405);
  const object = { object: "message", id: "m1", grant_id: "g1", from: [{ email: "dana@work.test" }], body: "<p>x</p>" };
  const event = { specversion: "1.0", type: "message.created", id: unique("n-"), time: seconds(), data: { object } };
  const plain = Buffer.from(JSON.stringify(event));
  const hex = (bytes) => createHmac("sha256", secret).update(bytes).digest("hex");
  const packed = gzipSync(Buffer.from(JSON.stringify({ ...event, id: unique("n-") })));
  for (const bytes of [plain, packed]) {
    assert.equal(await post("nylas", { "x-nylas-signature": hex(bytes) }, bytes), 204);
    const changed = Buffer.from(bytes);
    changed[changed.length - 12] ^= 1;
    assert.equal(await post("nylas", { "x-nylas-signature": hex(bytes) }, changed), 401, "changed");
  }
  assert.equal(await post("nylas", { "x-nylas-signature": hex(plain) }, packed), 401, "of the text, not of what is sent");
}
