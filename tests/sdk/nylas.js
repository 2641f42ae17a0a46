// Nylas' SDK asks its double: a mail and its repeat, the mails of a mailbox with their headers, and the refusals.

import Nylas from "nylas";
import { assert, at, during, refusal, unique } from "./support.js";

const nylas = new Nylas({ apiKey: "nyk_lab", apiUri: at("nylas") });
const identifier = "41009df5-bf11-4c97-aa18-b285b5f2e386";
const key = unique("usher/");
const email = unique("dana.") + "@work.test";
const requestBody = {
  to: [{ email, name: "Dana Doe" }],
  replyTo: [{ email: "help@acme.test" }],
  subject: "Hello",
  body: "<p>Hello</p>",
  customHeaders: [{ name: "X-Usher-Key", value: key }],
};
const send = (body, overrides) => nylas.messages.send({ identifier, requestBody: body, overrides });
const under = (key) => ({ headers: { "Idempotency-Key": key } });

const first = await send(requestBody, under(key));
assert.match(first.data.id, /./);
assert.equal(first.data.grantId, identifier);
assert.equal((await send(requestBody, under(key))).data.id, first.data.id, "the same key sends one mail");
const reused = await refusal(() => send({ ...requestBody, subject: "Other" }, under(key)));
assert.deepEqual([reused.statusCode, reused.type], [409, "api.invalid_idempotent_request"]);

const queryParams = { to: [email], fields: "include_headers", limit: 50 };
const listed = await nylas.messages.list({ identifier, queryParams });
assert.deepEqual(listed.data.map((mail) => mail.id), [first.data.id]);
assert.deepEqual(listed.data[0].headers, requestBody.customHeaders);
assert.equal((await nylas.grants.find({ grantId: "of-acme" })).data.email, "mailbox@acme.test");

for (const [what, ask, status] of [
  ["no mailbox", () => nylas.messages.send({ identifier: "missing", requestBody }), 404],
  ["no recipient", () => send({ ...requestBody, to: [] }), 400],
  ["refused by the provider", () => send({ ...requestBody, to: [{ email: "refused@work.test" }] }), 402],
  ["no key", () => new Nylas({ apiKey: "x", apiUri: at("nylas") }).grants.find({ grantId: identifier }), 401],
]) {
  const error = await refusal(ask);
  assert.equal(error.statusCode, status, `${what}: ${error}`);
  assert.ok(error.requestId, what);
}
for (const status of [429, 503, 504]) {
  const error = await during("nylas", { status }, () => refusal(() => send(requestBody)));
  assert.equal(error.statusCode, status);
}
