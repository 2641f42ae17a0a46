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
