// Mailchimp's SDK asks its double: each operation of Usher's on a member in each state that refuses one.

import { createHash } from "node:crypto";
import { createRequire } from "node:module";
import { assert, at, during, refusal, unique } from "./support.js";

const mailchimp = createRequire(import.meta.url)("@mailchimp/mailchimp_marketing");
mailchimp.setConfig({ apiKey: "lab-us1", server: "us1" });
// The SDK knows no other place than Mailchimp's own.
mailchimp.lists.apiClient.basePath = `${at("mailchimp")}/3.0`;
const { lists } = mailchimp;
const list = "1ab0000000";
const hash = (email) => createHash("md5").update(email.toLowerCase()).digest("hex");
const title = (error) => JSON.parse(error.response.text).title;
const skip = { skipMergeValidation: true };

const put = (email, body, at = email) => lists.setListMember(list, hash(at), { email_address: email, ...body }, skip);
const get = (email) => lists.getListMember(list, hash(email));
const archive = (email) => lists.deleteListMember(list, hash(email));

const email = unique("dana.") + "@work.test";
const made = await put(email, { status_if_new: "pending", merge_fields: { FNAME: "Dana" } });
assert.deepEqual([made.id, made.status, made.merge_fields.FNAME], [hash(email), "pending", "Dana"]);
const pending = await refusal(() => archive(email));
assert.deepEqual([pending.status, title(pending)], [405, "Method Not Allowed"]);
assert.equal((await lists.updateListMember(list, hash(email), { status: "unsubscribed" })).status, "unsubscribed");
await archive(email);
assert.equal((await get(email)).status, "archived");
assert.equal((await refusal(() => archive(email))).status, 405, "archived already");
assert.equal((await put(email, { status_if_new: "pending" })).status, "archived", "status_if_new takes nobody back");
assert.equal((await put(email, { status_if_new: "pending", status: "pending" })).status, "pending");

await lists.updateListMemberTags(list, hash(email), { tags: [{ name: "trial", status: "active" }] });
await put(email, { status_if_new: "pending", tags: ["ignored"] });
assert.deepEqual((await get(email)).tags.map((tag) => tag.name), ["trial"], "tags of a put reach new members only");

const moved = unique("moved.") + "@work.test";
const refused = await refusal(() => lists.updateListMember(list, hash(email), { email_address: moved }));
assert.equal(title(refused), "Invalid Resource", "only who is subscribed changes the address");
await lists.updateListMember(list, hash(email), { status: "subscribed" });
const there = await lists.updateListMember(list, hash(email), { email_address: moved });
assert.deepEqual([there.id, there.contact_id], [hash(moved), made.contact_id]);
assert.equal((await refusal(() => get(email))).status, 404);

await lists.deleteListMemberPermanent(list, hash(moved));
assert.equal(title(await refusal(() => put(moved, { status_if_new: "pending" }))), "Forgotten Email Not Subscribed");
const erased = await refusal(() => lists.deleteListMemberPermanent(list, hash(moved)));
assert.equal(erased.status, 404, "erased already");
const tagged = unique("tagged.") + "@work.test";
await put(tagged, { status_if_new: "subscribed" });
const tags = [{ name: "trial", status: "active" }, { name: "pro", status: "active" }];
await lists.updateListMemberTags(list, hash(tagged), { tags });
await lists.updateListMemberTags(list, hash(tagged), { tags: [{ name: "trial", status: "inactive" }] });
assert.deepEqual((await get(tagged)).tags.map((tag) => tag.name), ["pro"]);
const compliance = await refusal(() => put("compliance@work.test", { status_if_new: "pending" }));
assert.equal(title(compliance), "Member In Compliance State");
assert.equal((await refusal(() => lists.getList("missing"))).status, 404);
for (const status of [429, 503]) {
  const error = await during("mailchimp", { status }, () => refusal(() => put(email, { status_if_new: "pending" })));
  assert.equal(error.status, status);
}
