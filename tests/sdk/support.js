// Shared by the judges: where the lab is, faults to order, and how a refusal is expected.

import assert from "node:assert/strict";

/** The lab's address, without a slash at its end. */
export const lab = process.env.USHER_TEST_LAB;
assert.ok(lab, "USHER_TEST_LAB is the address of a running lab");

/** The address of a double. */
export const at = (name) => `${lab}/${name}`;

/** Runs `ask` while the double of `name` answers as `fault` says. */
export async function during(name, fault, ask) {
  const url = `${lab}/faults/${name}`;
  const ordered = await fetch(url, { method: "PUT", body: JSON.stringify(fault) });
  assert.equal(ordered.ok, true, await ordered.text());
  try {
    return await ask();
  } finally {
    await fetch(url, { method: "DELETE" });
  }
}

/** The error that `ask` ends with. */
export async function refusal(ask) {
  const nothing = Symbol("no error");
  const error = await ask().then(() => nothing, (error) => error);
  assert.notEqual(error, nothing, "it is refused");
  return error;
}

/** An id that nobody else has. */
export const unique = (prefix) => `${prefix}${Date.now().toString(36)}${Math.random().toString(36).slice(2, 8)}`;

export { assert };
