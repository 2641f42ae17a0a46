// Resend's SDK asks its double: the mail that Usher sends, repeated under its key, and the refusals by name.

import { Resend } from "resend";
import { assert, at, during, unique } from "./support.js";

const resend = new Resend("re_lab", { baseUrl: at("resend") });
const mail = {
  from: "Acme <hello@acme.test>",
  to: ["dana@work.test"],
  replyTo: "help@acme.test",
  subject: "Welcome",
  html: "<p>Hello</p>",
  text: "Hello",
  tags: [{ name: "clerk_user_id", value: "user_1" }],
  headers: { "X-Lab": "one" },
};
const send = async (mail, options) => resend.emails.send(mail, options);

const key = { idempotencyKey: unique("usher/") };
const first = await send(mail, key);
assert.equal(first.error, null);
assert.match(first.data.id, /./);
const again = await send(mail, key);
assert.equal(again.data.id, first.data.id, "the same mail under the same key is the same mail");

const other = await send({ ...mail, subject: "Other" }, key);
assert.deepEqual([other.data, other.error.name, other.error.statusCode], [null, "invalid_idempotent_request", 409]);

const stranger = await new Resend("no key", { baseUrl: at("resend") }).emails.send(mail);
assert.equal(stranger.data, null);
assert.match(stranger.error.name, /api_key/);

for (const [what, wrong, names] of [
  ["no recipient", { ...mail, to: [] }, ["validation_error", "missing_required_field", "invalid_parameter"]],
  ["a line's end in a subject", { ...mail, subject: "a\nb" }, ["validation_error", "invalid_parameter"]],
  ["a tag with a space", { ...mail, tags: [{ name: "a b", value: "c" }] }, ["validation_error", "invalid_parameter"]],
]) {
  const { data, error } = await send(wrong);
  assert.equal(data, null, what);
  assert.ok(names.includes(error.name), `${what}: ${error.name}`);
}

for (const [status, name] of [[429, "rate_limit_exceeded"], [500, "internal_server_error"], [403, "validation_error"]]) {
  const { data, error } = await during("resend", { status, name }, () => send(mail));
  assert.deepEqual([data, error.name, error.statusCode], [null, name, status]);
}

// Contacts, as `put_contact` and `delete_contact` ask for them.
const email = unique("Ada.") + "@work.test";
const segment = "78261eea-8f8b-4381-83c6-79fa7120f1cf";
const topic = "b6d24b8e-af0b-4c3c-be0c-359bbd97381e";
const { contacts } = resend;
const none = await contacts.get({ email });
assert.deepEqual([none.data, none.error.name, none.error.statusCode], [null, "not_found", 404]);
const made = await contacts.create({
  email,
  firstName: "Ada",
  unsubscribed: true,
  properties: { plan: "trial", seats: 3 },
  segments: [segment],
  topics: [{ id: topic, subscription: "opt_in" }],
});
assert.equal(made.error, null);
const found = await contacts.get({ email: email.toLowerCase() });
assert.deepEqual(
  [found.data.id, found.data.email, found.data.first_name, found.data.last_name, found.data.unsubscribed],
  [made.data.id, email, "Ada", null, true],
);
assert.deepEqual(found.data.properties, { plan: "trial", seats: 3 });
assert.equal((await contacts.update({ email, lastName: "Lovelace", properties: { plan: null } })).data.id, made.data.id);
const changed = (await contacts.get({ id: made.data.id })).data;
assert.deepEqual([changed.first_name, changed.last_name, changed.unsubscribed], ["Ada", "Lovelace", true]);
assert.deepEqual(changed.properties, { seats: 3 });
assert.equal((await contacts.segments.add({ email, segmentId: segment })).error, null, "it is in there already");
assert.deepEqual((await contacts.segments.list({ email })).data.data.map((it) => it.id), [segment]);
assert.equal((await contacts.topics.update({ email, topics: [{ id: topic, subscription: "opt_out" }] })).error, null);
assert.deepEqual((await contacts.topics.list({ email })).data.data.map((it) => it.subscription), ["opt_out"]);
assert.equal((await contacts.create({ email })).data.id, made.data.id);
assert.equal((await contacts.get({ email })).data.unsubscribed, false, "a second POST resets what it omits");
assert.equal((await contacts.remove({ email })).data.deleted, true);
assert.equal((await contacts.remove({ email })).data.deleted, true, "also of a contact that is none");
assert.equal((await contacts.update({ email, firstName: "Ada" })).error.name, "not_found");
