// Shared by the walk: the browser, signed webhooks, and pictures.

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { chromium } from "playwright-core";
import axe from "axe-core";

/** Reads a variable that the test sets. */
export function variable(name) {
  const value = process.env[name];
  assert.ok(value, `${name} is not set`);
  return value;
}

export const base = variable("USHER_TEST_CONSOLE");
const webhooks = variable("USHER_TEST_WEBHOOKS");
const secret = variable("CLERK_WEBHOOK_SIGNING_SECRET");
/** The folder for pictures; none are made without it. */
const pictures = process.env.USHER_TEST_PICTURES;

/** Time limit of everything that is waited for, in ms. */
export const SOON = 90_000;

/** Starts Chromium: the one that CHROMIUM names, else Debian's. */
export async function launch() {
  const executablePath = process.env.CHROMIUM || "/usr/bin/chromium";
  assert.ok(existsSync(executablePath), `${executablePath} is not there: install chromium, or name one in CHROMIUM`);
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"] });
  return browser;
}

/** Opens a page of its own session. Errors in its scripts and refused resources fail the walk. */
export async function open(browser, faults) {
  const context = await browser.newContext({ viewport: { width: 1360, height: 900 } });
  context.setDefaultTimeout(SOON);
  const page = await context.newPage();
  page.on("pageerror", (error) => faults.push(`a script fails: ${error}`));
  page.on("console", (message) => {
    if (message.type() === "error") faults.push(`${page.url()}: ${message.text()}`);
  });
  return page;
}

let people = 0;

/** Lets somebody sign up. Returns the id and the address. */
export async function signUp(name) {
  people += 1;
  const id = `user_walk${Date.now().toString(36)}${people}`;
  const address = `${name.toLowerCase()}.${people}@walk.test`;
  const now = Date.now();
  const data = {
    id,
    object: "user",
    first_name: name,
    last_name: null,
    username: null,
    created_at: now,
    updated_at: now,
    primary_email_address_id: "idn_1",
    primary_phone_number_id: null,
    email_addresses: [{ id: "idn_1", object: "email_address", email_address: address }],
    phone_numbers: [],
    public_metadata: {},
    private_metadata: {},
    unsafe_metadata: {},
  };
  const body = JSON.stringify({ data, object: "event", type: "user.created", timestamp: now, instance_id: "ins_walk" });
  const message = `msg_${id}`;
  const at = Math.floor(now / 1000).toString();
  const key = Buffer.from(secret.replace(/^whsec_/, ""), "base64");
  const signature = createHmac("sha256", key).update(`${message}.${at}.${body}`).digest("base64");
  const headers = { "content-type": "application/json", "svix-id": message, "svix-timestamp": at, "svix-signature": `v1,${signature}` };
  const answer = await fetch(`${webhooks}/webhooks/clerk`, { method: "POST", headers, body });
  assert.equal(answer.status, 204, await answer.text());
  return { id, address, event: `clerk/default/${message}` };
}

/** Signs in with a token. */
export async function signIn(page, name, token) {
  await page.goto(`${base}/login`);
  await page.getByLabel("Your name").fill(name);
  await page.getByLabel("Token").fill(token);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.waitForURL(`${base}/`);
}

/** Waits until a question about the page, which is loaded again each time, is answered with something true. */
export async function eventually(page, address, what, question) {
  const until = Date.now() + SOON;
  for (;;) {
    await page.goto(base + address);
    const answer = await question();
    if (answer) return answer;
    if (Date.now() > until) assert.fail(`not in time: ${what}; the page says: ${await page.locator("main").innerText()}`);
    await page.waitForTimeout(250);
  }
}

/** Fails if axe finds a serious or critical fault of accessibility on the page, light or dark. */
export async function accessible(page, what) {
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme });
    // Content of a frame is a mail, which is not ours; its frame cannot run scripts.
    const { violations } = await page.evaluate(`${axe.source}; axe.run({ exclude: ["iframe"] }, { iframes: false })`);
    const bad = violations.filter(({ impact }) => impact === "serious" || impact === "critical");
    const told = bad.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.map((node) => `${node.html} ${node.failureSummary}`).join("; ")}`);
    assert.deepEqual(told, [], `${what}, ${colorScheme}`);
  }
  await page.emulateMedia({ colorScheme: "light" });
}

/** Takes pictures of the page as it is: light and dark, wide and narrow. */
export async function picture(page, name) {
  if (!pictures) return;
  await mkdir(pictures, { recursive: true });
  const session = await page.context().newCDPSession(page);
  for (const colorScheme of ["light", "dark"]) {
    for (const width of [1360, 420]) {
      await page.emulateMedia({ colorScheme });
      await page.setViewportSize({ width, height: width > 1000 ? 900 : 1000 });
      const { data } = await session.send("Page.captureScreenshot", { format: "webp", quality: 70 });
      await writeFile(`${pictures}/${name}-${colorScheme}-${width}.webp`, Buffer.from(data, "base64"));
    }
  }
  await page.emulateMedia({ colorScheme: "light" });
  await page.setViewportSize({ width: 1360, height: 900 });
  await session.detach();
}

export { assert };
