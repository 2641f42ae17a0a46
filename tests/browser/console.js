// The console in a real browser, as an operator, a reader and a page of another site use it. Runs against a `usher up` with its
// lab; the test that starts it gives the addresses and tokens (tests/tests/e2e/scenarios/browser.rs).

import { createServer } from "node:http";
import { accessible, assert, base, eventually, launch, open, picture, signIn, signUp, variable } from "./support.js";

const faults = [];
const browser = await launch();
const step = (words) => console.log(`- ${words}`);
const text = (page) => page.locator("main").innerText();

try {
  const page = await open(browser, faults);
  await page.goto(`${base}/login`);
  await accessible(page, "login");
  await picture(page, "login");
  await signIn(page, "Ann", variable("USHER_CONSOLE_TOKEN"));

  step("a signup appears live");
  await page.goto(`${base}/events`);
  await page.getByText(/^live, as of/).waitFor();
  await page.evaluate(() => { window.sameDocument = true; });
  const ada = await signUp("Ada");
  await page.getByText("email: done").waitFor();
  assert.equal(await page.evaluate(() => window.sameDocument), true, "the page was not loaded again");

  step("the person is found by the address");
  await page.keyboard.press("/");
  await page.keyboard.type(ada.address);
  await page.keyboard.press("Enter");
  await page.waitForURL(/\/person\?id=/);
  assert.ok((await page.title()).includes(ada.id), await page.title());
  assert.ok(!(await text(page)).includes(ada.address), "masked");
  await page.getByRole("button", { name: "Show it" }).click();
  await page.getByText(ada.address).first().waitFor();
  assert.match(await text(page), /Ann has seen it/);
  await page.goto(`${base}/person?id=clerk/default/${ada.id}`);
  await accessible(page, "person");
  await picture(page, "person");

  step("a destination that fails: attempts on the event, the breaker on the overview");
  await page.goto(`${base}/lab`);
  await page.getByRole("button", { name: "resend: answer 503" }).click();
  await page.getByText("answer 503, hit").waitFor();
  const held = [];
  for (const name of ["Bea", "Cleo", "Dana", "Edda", "Fay", "Gwen", "Hana", "Ida", "Jana", "Kim", "Lea", "Mia"]) held.push(await signUp(name));
  await eventually(page, `/event?ref=${held[0].event}`, "a failed attempt", () => page.getByText("503").count());
  assert.ok(await page.locator(`svg.bars[aria-label^="attempt 1 failed"]`).count(), await page.content());
  await eventually(page, "/", "the breaker", () => page.getByText(/resend has not served since/).count());
  const breaker = page.locator("tr", { has: page.locator("td", { hasText: /^resend$/ }) });
  assert.match(await breaker.innerText(), /open since/);

  step("the number of runs that wait leads to their events");
  const number = breaker.locator("a");
  await eventually(page, "/", "all wait", async () => (await number.count()) && (await number.innerText()) === `${held.length}`);
  await number.click();
  assert.equal(await page.locator("tbody tr").count(), held.length);

  step("a flow is paused, and goes on");
  await page.goto(`${base}/flow?name=trial`);
  await page.getByText("Pause …").click();
  await page.getByLabel("Why").fill("new prices go live at three");
  await page.getByRole("button", { name: /^Pause trial on/ }).click();
  await page.getByText("Paused by Ann").waitFor();
  assert.match(await text(page), /new prices go live at three/);
  await page.goto(`${base}/`);
  await page.getByText("trial is paused").waitFor();
  await accessible(page, "overview");
  await picture(page, "overview");
  await page.goto(`${base}/event?ref=${held[0].event}`);
  await accessible(page, "event");
  await picture(page, "event");
  await page.goto(`${base}/lab`);
  await accessible(page, "lab");
  await picture(page, "lab");
  await page.goto(`${base}/flow?name=trial`);
  await page.getByRole("button", { name: "Resume trial" }).click();
  await page.getByText("Pause …").waitFor();

  step("dead letters are redriven with progress");
  await page.goto(`${base}/lab`);
  await page.getByRole("button", { name: "resend: end the fault" }).click();
  await eventually(page, "/", "the destination serves again", async () => /Nothing needs you/.test(await text(page)));
  await page.goto(`${base}/lab`);
  await page.getByRole("button", { name: "resend: refuse with 422" }).click();
  await page.getByText("refuse with 422, hit").waitFor();
  const refused = [];
  for (const name of ["Nora", "Olga", "Pia", "Rosa"]) refused.push(await signUp(name));
  await eventually(page, "/dead", "four dead letters", async () => /^4 dead letters, 1 cause/.test(await text(page)));
  await accessible(page, "dead letters");
  await picture(page, "dead");
  await page.getByRole("link", { name: "List 4 one by one" }).click();
  await page.getByRole("checkbox").first().check();
  await page.getByRole("button", { name: "Redrive these 1 chosen …" }).waitFor();
  await accessible(page, "list of dead letters");
  await page.goto(`${base}/lab`);
  await page.getByRole("button", { name: "resend: end the fault" }).click();
  await page.goto(`${base}/dead`);
  await page.getByRole("link", { name: "Redrive all 4 …" }).click();
  await accessible(page, "plan");
  await picture(page, "plan");
  await page.getByLabel(/Runs a second/).fill("2");
  await page.getByRole("button", { name: /^Redrive all 4 runs on/ }).click();
  await page.waitForURL(/\/redrive\?id=/);
  const redrive = page.url();
  // Closing the page changes nothing; another one shows the same.
  await page.goto(`${base}/flows`);
  await accessible(page, "flows");
  await page.goto(redrive);
  await page.getByText("4 of 4 are over").waitFor();
  await page.getByText("ended", { exact: true }).first().waitFor();
  assert.equal(await page.getByRole("row", { name: /^done 4/ }).count(), 1, await text(page));
  await accessible(page, "redrive");
  await picture(page, "redrive");
  await page.getByRole("row", { name: /^done 4/ }).getByRole("link").click();
  assert.equal(await page.locator("section + * ~ * tbody tr, .scroll tbody tr").count(), 4);
  await page.goto(`${base}/redrives`);
  await accessible(page, "redrives");
  await picture(page, "redrives");
  await page.goto(`${base}/dead`);
  assert.match(await text(page), /^0 dead letters/);

  step("a mail is looked at before it is sent, and as it arrived");
  await page.goto(`${base}/flow?name=email`);
  await page.locator("iframe.mail").scrollIntoViewIfNeeded();
  assert.match(await page.frameLocator("iframe.mail").locator("body").innerText(), /\w/);
  await page.getByLabel("Sample event").selectOption("user.created of somebody without a name");
  await page.getByRole("button", { name: "Show", exact: true }).click();
  await page.frameLocator("iframe.mail").locator("body").waitFor();
  await accessible(page, "flow");
  await page.goto(`${base}/flow?name=email`);
  await page.locator("iframe.mail").scrollIntoViewIfNeeded();
  await page.frameLocator("iframe.mail").locator("body").waitFor();
  await page.evaluate(() => window.scrollTo(0, 0));
  await picture(page, "flow");
  await page.goto(`${base}/lab`);
  await page.locator("table", { hasText: "Subject" }).getByRole("link").first().click();
  assert.match(await page.frameLocator("iframe.mail").locator("body").innerText(), /\w/);
  await page.goto(`${base}/events`);
  await accessible(page, "events");
  await picture(page, "events");
  await page.goto(`${base}/search?q=nobody`);
  await accessible(page, "search");

  step("who only reads has no button, and is refused");
  const reader = await open(browser, faults);
  await signIn(reader, "Rita", variable("USHER_CONSOLE_READ_TOKEN"));
  for (const address of ["/", "/events", "/dead", "/flow?name=email", "/lab", `/event?ref=${ada.event}`, `/person?id=clerk/default/${ada.id}`]) {
    await reader.goto(base + address);
    const forms = await reader.locator(`form[method="post"]`).count();
    assert.equal(forms, 1, `only that of the sign out: ${address}`);
  }
  const csrf = await reader.locator(`form.leave input[name="csrf"]`).inputValue();
  const status = await reader.evaluate(async ([url, csrf]) => {
    const answer = await fetch(url, { method: "POST", body: new URLSearchParams({ csrf, flow: "email", why: "mine" }) });
    return answer.status;
  }, [`${base}/flow/pause`, csrf]);
  assert.equal(status, 403);
  // The browser tells of the refusal, of the search that finds nothing, and that nothing of this walk runs in the frame of a mail.
  const expected = [/status of 403/, /search\?q=nobody.*status of 404/, /frame is sandboxed/];
  const unexpected = faults.splice(0).filter((fault) => !expected.some((known) => known.test(fault)));
  assert.deepEqual(unexpected, []);

  step("a page of another site does nothing, although the operator is signed in");
  const evil = createServer((_, answer) => {
    answer.setHeader("content-type", "text/html");
    answer.end(`<form method="post" action="${base}/flow/pause"><input name="flow" value="email"></form><button onclick="document.forms[0].submit()">win</button>`);
  });
  await new Promise((done) => evil.listen(0, "127.0.0.1", done));
  await page.goto(`http://127.0.0.1:${evil.address().port}/`);
  const [refusal] = await Promise.all([
    page.waitForResponse((answer) => answer.url() === `${base}/flow/pause`),
    page.getByRole("button", { name: "win" }).click(),
  ]);
  assert.equal(refusal.status(), 403);
  evil.close();
  await page.goto(`${base}/flow?name=email`);
  await page.getByText("Pause …").waitFor();
} finally {
  await browser.close();
}
