// Clerk's SDK asks its double: the merge of metadata, the objects before and after, and the refusals as the SDK's errors.

import { createClerkClient } from "@clerk/backend";
import { isClerkAPIResponseError } from "@clerk/backend/errors";
import { assert, at, during, refusal, unique } from "./support.js";

const client = (secretKey) => createClerkClient({ secretKey, apiUrl: at("clerk"), telemetry: { disabled: true } });
const clerk = client("sk_test_lab");

const user = await clerk.users.createUser({
  emailAddress: ["dana@work.test"],
  firstName: "Dana",
  lastName: "Doe",
  publicMetadata: { plan: "free", team: { name: "a", seats: 3 } },
});
assert.match(user.id, /^user_/);
assert.equal(user.primaryEmailAddress.emailAddress, "dana@work.test");
assert.deepEqual([user.firstName, user.publicMetadata.plan, user.privateMetadata], ["Dana", "free", {}]);

const merged = await clerk.users.updateUserMetadata(user.id, {
  publicMetadata: { plan: null, team: { seats: 4 } },
  privateMetadata: { stripe_customer_id: "cus_1", flags: [true, 1, "x"] },
  unsafeMetadata: { theme: "dark" },
});
assert.deepEqual(merged.publicMetadata, { team: { name: "a", seats: 4 } }, "nested objects are merged, null removes");
assert.deepEqual(merged.privateMetadata, { stripe_customer_id: "cus_1", flags: [true, 1, "x"] });
assert.ok(merged.updatedAt > user.updatedAt);
const read = await clerk.users.getUser(user.id);
assert.deepEqual([read.publicMetadata, read.unsafeMetadata], [merged.publicMetadata, { theme: "dark" }]);

// A user of `usher send`, whom the double has never seen.
const unseen = await clerk.users.updateUserMetadata(unique("user_"), { privateMetadata: { a: 1 } });
assert.deepEqual([unseen.privateMetadata, unseen.emailAddresses], [{ a: 1 }, []]);

const organization = await clerk.organizations.createOrganization({ name: "Acme", createdBy: user.id });
const changed = await clerk.organizations.updateOrganizationMetadata(organization.id, { publicMetadata: { plan: "pro" } });
assert.deepEqual([changed.name, changed.publicMetadata], ["Acme", { plan: "pro" }]);
const shown = await clerk.organizations.getOrganization({ organizationId: organization.id });
assert.deepEqual(shown.publicMetadata, { plan: "pro" });

const refused = async (ask, status, code) => {
  const error = await refusal(ask);
  assert.ok(isClerkAPIResponseError(error), `${error}`);
  assert.deepEqual([error.status, error.errors[0].code], [status, code]);
  assert.ok(error.clerkTraceId, "it can be traced");
  return error;
};
const write = (id, metadata) => clerk.users.updateUserMetadata(id, metadata);
await refused(() => write("user_missing", { publicMetadata: {} }), 404, "resource_not_found");
await refused(() => write("org_1", { publicMetadata: {} }), 404, "resource_not_found");
const large = await refused(() => write(user.id, { publicMetadata: { a: "x".repeat(9000) } }), 422, "form_param_exceeds_allowed_size");
assert.equal(large.errors[0].meta.paramName, "public_metadata");
await refused(() => write(user.id, { publicMetadata: ["a"] }), 422, "form_param_type_invalid");
await refused(() => client("pk_test_lab").users.getUser(user.id), 401, "clerk_key_invalid");

assert.equal((await clerk.users.deleteUser(user.id)).deleted, true);
await refused(() => write(user.id, { publicMetadata: {} }), 404, "resource_not_found");
await refused(() => clerk.users.getUser(user.id), 404, "resource_not_found");
for (const status of [401, 403, 422, 503]) {
  const error = await during("clerk", { status }, () => refusal(() => clerk.users.getUser(user.id)));
  assert.equal(error.status, status);
}
const limited = await during("clerk", { status: 429, retry_after: 7 }, () => refusal(() => clerk.users.getUser(user.id)));
assert.deepEqual([limited.status, limited.retryAfter], [429, 7]);
