// The page in a browser, against the demo as it is shipped: what it promises to those who open it.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import AxeBuilder from "@axe-core/playwright";
import { launch, startDemo } from "./gateway.mjs";

const SIZES = [
  [360, 740],
  [1280, 800],
  [2560, 1440],
];
const WITHIN = { timeout: 15_000 };

let browser;
let demo;
/** One browser that is signed in by the link; every test has pages of its own in it. */
let context;
const wrong = [];

/** A page that reports requests to elsewhere, breaches of the policy and errors. */
async function open(from = context, path = "/") {
  const page = await from.newPage();
  page.setDefaultTimeout(WITHIN.timeout);
  page.on("request", (request) => {
    if (new URL(request.url()).origin !== demo.url) wrong.push(`a request to ${request.url()}`);
  });
  page.on("pageerror", (error) => wrong.push(`an error: ${error}`));
  page.on("console", (message) => {
    if (/Content Security Policy/i.test(message.text())) wrong.push(message.text());
  });
  page.on("dialog", (dialog) => {
    wrong.push(`a script ran: ${dialog.message()}`);
    void dialog.dismiss();
  });
  await page.goto(path.startsWith("http") ? path : demo.url + path);
  return page;
}

async function admin(method, path, body) {
  const headers = { authorization: `Bearer ${demo.adminToken}`, "content-type": "application/json" };
  const answer = await fetch(`${demo.url}/admin/v1${path}`, { method, headers, body: body && JSON.stringify(body) });
  return { status: answer.status, json: await answer.json() };
}

async function noViolation(page, where) {
  const { violations } = await new AxeBuilder({ page }).withTags(["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa"]).analyze();
  const shown = violations.map((one) => `${one.id}: ${one.nodes.map((node) => `${node.target} ${node.failureSummary}`).join("; ")}`);
  assert.deepEqual(shown, [], where);
}

before(async () => {
  [browser, demo] = await Promise.all([launch(), startDemo()]);
  context = await browser.newContext({ viewport: { width: 1280, height: 800 } });
  assert.match(demo.link, /^http:\/\/127\.0\.0\.1:\d+\/#twl_/);
  const page = await open(context, demo.link);
  await page.getByRole("heading", { name: "Overview" }).waitFor();
  assert.ok(!page.url().includes("twl_"), "the link's token is out of the address bar");
  await page.close();
});

after(async () => {
  await browser?.close();
  await demo?.stop();
});

test("the link is dead after its use, and a wrong token is refused", async () => {
  const stranger = await browser.newContext();
  const page = await open(stranger, demo.link);
  await page.getByRole("heading", { name: "Sign in to Tierway" }).waitFor();
  await page.getByRole("alert").getByText("This link was used already").waitFor();
  await page.getByLabel("Admin or viewer token").fill("twa_wrong");
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("alert").getByText("No valid token").waitFor();
  await noViolation(page, "sign-in");
  await stranger.close();
});

test("the overview moves, a region breaks, and no request fails", async () => {
  const page = await open();
  await page.getByText("live", { exact: true }).waitFor();
  await page.getByRole("button", { name: "Send sample traffic" }).click();
  const rate = page.locator(".tile", { hasText: "Requests a second" }).locator(".value");
  await page.waitForFunction((tile) => Number(tile.textContent) > 2, await rate.elementHandle(), WITHIN);
  await page.getByRole("link", { name: "Map", exact: true }).click();
  const region = page.getByRole("listitem").filter({ hasText: "us-east" });
  await region.getByText("5 of 5 serving").waitFor();
  await region.getByRole("button", { name: "Break" }).click();
  await page.getByText("region us-east refuses every connection").waitFor();
  await page.locator(".node.deployment.bad").first().waitFor();
  await page.getByText("0 failed").waitFor();
  const { json: history } = await admin("GET", "/history");
  const sum = (list) => list.reduce((all, one) => all + one, 0);
  assert.ok(sum(history.requests) > 10 && sum(history.faults) === 0, JSON.stringify([sum(history.requests), sum(history.faults)]));
  assert.ok(sum(history.failovers) > 0, "some requests moved");
  await noViolation(page, "a broken map");
  await page.getByRole("button", { name: "Mend region us-east" }).click();
  await page.getByText("region us-east refuses every connection").waitFor({ state: "detached" });
  // What is asked most is probed soonest.
  await page.getByRole("link", { name: "sim-us/deepseek-ai/DeepSeek-V4-Flash, serving" }).waitFor({ timeout: 40_000 });
  await page.getByRole("button", { name: "Stop" }).click();
  await page.close();
});

test("a key is created, its snippet works, and its request is explained", async () => {
  const page = await open(context, "/#/keys");
  await page.getByRole("button", { name: "Create key" }).click();
  await page.getByLabel("Name").fill("from-the-page");
  await page.getByLabel("USD a month").fill("5");
  await page.getByRole("button", { name: "Create", exact: true }).click();
  await page.getByText("It is shown now and never again.").waitFor();
  await noViolation(page, "the secret");
  const snippet = await page.getByLabel("curl snippet").innerText();
  const answer = JSON.parse(execFileSync("sh", ["-c", snippet.replace("curl ", "curl -fsS ")], { encoding: "utf8" }));
  assert.equal(answer.choices[0].message.role, "assistant");
  await page.getByRole("button", { name: "Close" }).click();
  await page.getByRole("link", { name: "from-the-page" }).click();
  await page.getByRole("link", { name: "Its requests" }).click();
  const row = page.getByRole("table").getByRole("link").first();
  await row.waitFor();
  await row.click();
  await page.getByRole("heading", { name: "What became of it" }).waitFor();
  const id = await page.getByRole("heading", { level: 1 }).innerText();
  const { json: receipt } = await admin("GET", `/ledger/${id}`);
  assert.equal(receipt.key, "from-the-page");
  for (const attempt of receipt.attempts) await page.locator(".waterfall").getByText(attempt.deployment).first().waitFor();
  assert.equal(await page.locator(".waterfall li.attempt").count(), receipt.attempts.length);
  await noViolation(page, "one request");
  await page.goto(`${demo.url}/#/keys/from-the-page`);
  await page.getByRole("button", { name: "Rotate" }).click();
  await page.getByRole("button", { name: "Make a new secret" }).click();
  await page.getByText("It is shown now and never again.").waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("button", { name: "Disable" }).click();
  await page.getByRole("button", { name: "Enable" }).waitFor();
  assert.equal((await admin("GET", "/keys/from-the-page")).json.state, "disabled");
  await page.close();
});

test("the configuration is shown with origins, and a search is a URL", async () => {
  const page = await open(context, "/#/configuration");
  const row = page.getByRole("row").filter({ hasText: "server.listen" });
  await row.getByText("127.0.0.1:0").waitFor();
  await page.getByRole("searchbox").fill("server.drain");
  await page.getByText("No setting has this in it.").waitFor();
  await page.getByRole("button", { name: "Defaults too" }).click();
  await page.getByRole("row").filter({ hasText: "server.drain" }).getByText("default").first().waitFor();
  assert.match(page.url(), /#\/configuration\?search=server\.drain&all=yes$/);
  await page.close();
});

test("no name is more than a text", async () => {
  // Names have no blanks and no double quotes; what is asked for as a model may be anything.
  const names = ["<script>alert(1)</script>", "<img/src=x/onerror=alert(2)>", "'-alert(3)-'", "javascript:alert(4)", "${alert(5)}", "<svg/onload=alert(6)>"];
  for (const name of names) {
    const made = await admin("POST", "/keys", { name, policy: "standard", team: name });
    assert.equal(made.status, 201, name);
    assert.equal((await admin("POST", "/teams", { name })).status, 201, name);
    const model = `${name}" onmouseover="alert(7)`;
    const headers = { authorization: `Bearer ${made.json.secret}`, "content-type": "application/json" };
    const asked = await fetch(`${demo.url}/v1/chat/completions`, { method: "POST", headers, body: JSON.stringify({ model, messages: [{ role: "user", content: "Hi" }] }) });
    assert.equal(asked.status, 404);
  }
  const page = await open(context, "/#/keys");
  for (const name of names) {
    await page.goto(`${demo.url}/#/keys/${encodeURIComponent(name)}`);
    await page.getByRole("heading", { level: 2, name, exact: true }).waitFor();
  }
  for (const name of names) {
    await page.goto(`${demo.url}/#/requests?key=${encodeURIComponent(name)}`);
    await page.getByRole("table").getByText(`${name}" onmouseover="alert(7)`).first().waitFor();
  }
  assert.equal(await page.locator("#page script, #page img, #page [onmouseover]").count(), 0);
  await page.close();
});

test("every page is whole at every size, dark and light", async () => {
  const pages = ["overview", "map", "requests", "keys", "cost", "sla", "posture", "configuration"];
  for (const colorScheme of ["light", "dark"]) {
    for (const [width, height] of SIZES) {
      const page = await open();
      await page.emulateMedia({ colorScheme });
      await page.setViewportSize({ width, height });
      for (const name of pages) {
        const where = `${name} at ${width}, ${colorScheme}`;
        await page.goto(`${demo.url}/#/${name}`);
        await page.getByRole("heading", { level: 1 }).waitFor();
        await page.waitForFunction(() => document.querySelector("[aria-busy]") === null);
        const beyond = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
        assert.ok(beyond <= 0, `${where} is wider than the window by ${beyond}`);
        // Sizes change no colour: what depends on both is looked at once for each.
        if (width !== 2560) await noViolation(page, where);
      }
      await page.close();
    }
  }
});

test("what was spent is added up, compared and saved as CSV", async () => {
  // Of the sample traffic hardly any goes to the dear tier.
  for (const model of ["premium", "default"]) {
    const headers = { authorization: `Bearer ${demo.key}`, "content-type": "application/json" };
    const body = JSON.stringify({ model, messages: [{ role: "user", content: "Hi" }] });
    assert.equal((await fetch(`${demo.url}/v1/chat/completions`, { method: "POST", headers, body })).status, 200);
  }
  const tiers = async () => (await admin("GET", "/usage?by=tier")).json.data.map((row) => row.tier);
  while (!(await tiers()).includes("premium")) await new Promise((then) => setTimeout(then, 100));
  const page = await open(context, "/#/cost?by=key");
  await page.getByRole("table", { name: "Cost by key" }).getByText("sample-traffic").waitFor();
  const { json: usage } = await admin("GET", "/usage?by=key");
  const [saved] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: "Download CSV" }).click()]);
  const lines = readFileSync(await saved.path(), "utf8").trim().split("\r\n");
  assert.equal(lines.length, usage.data.length + 1);
  assert.ok(lines.some((line) => line.startsWith("sample-traffic,")), lines.join("; "));
  const together = page.getByRole("region", { name: "Costs compared" }).locator("tfoot td");
  assert.match(await together.nth(2).innerText(), /the same/);
  await page.getByRole("slider", { name: /premium/ }).fill("100");
  await page.waitForFunction((cell) => /more/.test(cell.textContent), await together.nth(2).elementHandle(), WITHIN);
  await page.getByLabel("In", { exact: true }).fill("0");
  await page.getByLabel("Out", { exact: true }).fill("0");
  await page.waitForFunction((cell) => /100.0 % less/.test(cell.textContent), await together.nth(3).elementHandle(), WITHIN);
  await page.close();
});

test("an SLA and the buyer's questions are shown as the API has them", async () => {
  const page = await open(context, "/#/sla");
  const { json: sla } = await admin("GET", "/sla");
  if (sla.data.length === 0) await page.getByText("No policy has an SLA.").waitFor();
  for (const report of sla.data) await page.getByRole("heading", { name: `Policy ${report.policy}` }).waitFor();
  await page.goto(`${demo.url}/#/posture`);
  const { json: posture } = await admin("GET", "/posture");
  assert.equal(posture.answers.length, 6);
  for (const answer of posture.answers) await page.getByRole("heading", { level: 2, name: answer.question }).waitFor();
  await page.close();
});

test("the keyboard reaches everything", async () => {
  const page = await open();
  await page.getByRole("heading", { name: "Overview" }).waitFor();
  await page.keyboard.press("g");
  await page.keyboard.press("r");
  await page.getByRole("heading", { level: 1, name: "Requests" }).waitFor();
  await page.keyboard.press("/");
  assert.equal(await page.evaluate(() => document.activeElement?.getAttribute("type")), "search");
  await page.goto(`${demo.url}/#/keys`);
  await page.getByRole("button", { name: "Create key" }).focus();
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.activeElement?.getAttribute("name") === "name", undefined, WITHIN);
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "detached" });
  await page.close();
});

test("a viewer looks and changes nothing", async () => {
  const other = await startDemo({ TIERWAY__SERVER__VIEWER_TOKEN: "env:THE_VIEWER", THE_VIEWER: "twv_a_viewer_of_the_demo" });
  const viewer = await browser.newContext();
  try {
    const page = await viewer.newPage();
    await page.goto(other.url);
    await page.getByLabel("Admin or viewer token").fill("twv_a_viewer_of_the_demo");
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByText("may look only").waitFor();
    for (const name of ["map", "keys"]) {
      await page.goto(`${other.url}/#/${name}`);
      await page.getByRole("heading", { level: 1 }).waitFor();
      assert.equal(await page.getByRole("button", { name: /Break|Create|Rotate|Disable|sample/ }).count(), 0, name);
    }
    const status = await page.evaluate(async () => {
      const { csrf } = await (await fetch("/admin/v1/session")).json();
      const headers = { "x-tierway-csrf": csrf, "content-type": "application/json" };
      return (await fetch("/admin/v1/keys", { method: "POST", headers, body: '{"name":"a","policy":"pro"}' })).status;
    });
    assert.equal(status, 403);
  } finally {
    await viewer.close();
    await other.stop();
  }
});

test("a session is gone after signing out, and no script can read it", async () => {
  const own = await browser.newContext();
  const page = await open(own);
  await page.getByLabel("Admin or viewer token").fill(demo.adminToken);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByText("live", { exact: true }).waitFor();
  assert.equal(await page.evaluate(() => document.cookie), "");
  const [kept] = await own.cookies(`${demo.url}/admin`);
  assert.deepEqual([kept.httpOnly, kept.sameSite, kept.path], [true, "Strict", "/admin"]);
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByRole("heading", { name: "Sign in to Tierway" }).waitFor();
  const again = await fetch(`${demo.url}/admin/v1/keys`, { headers: { cookie: `${kept.name}=${kept.value}` } });
  assert.equal(again.status, 401);
  await own.close();
});

test("signing out ends the session that the browser has, also where another tab signed in since", async () => {
  const own = await browser.newContext();
  const page = await open(own);
  await page.getByLabel("Admin or viewer token").fill(demo.adminToken);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByText("live", { exact: true }).waitFor();
  const replaced = await page.evaluate(async (token) => {
    const headers = { authorization: `Bearer ${token}` };
    return (await fetch("/admin/v1/session", { method: "POST", headers })).status;
  }, demo.adminToken);
  assert.equal(replaced, 201);
  const [kept] = await own.cookies(`${demo.url}/admin`);
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByRole("heading", { name: "Sign in to Tierway" }).waitFor();
  const again = await fetch(`${demo.url}/admin/v1/keys`, { headers: { cookie: `${kept.name}=${kept.value}` } });
  assert.equal(again.status, 401);
  await own.close();
});

test("a page that only watches asks for the token once its session is gone, and says so where it cannot sign out", async () => {
  const first = await startDemo();
  const own = await browser.newContext();
  let second;
  try {
    const page = await own.newPage();
    page.setDefaultTimeout(WITHIN.timeout);
    await page.goto(first.link);
    await page.getByRole("heading", { level: 1, name: "Overview" }).waitFor();
    await page.goto(`${first.url}/#/map`);
    await page.getByText("live", { exact: true }).waitFor();
    await first.stop();
    await page.getByText("reconnecting").waitFor();
    await page.getByRole("button", { name: "Sign out" }).click();
    await page.getByRole("alert").getByText("Still signed in").waitFor();
    second = await startDemo({}, new URL(first.url).host);
    await page.getByRole("heading", { name: "Sign in to Tierway" }).waitFor();
  } finally {
    await own.close();
    await second?.stop();
  }
});

test("nothing went elsewhere, and nothing ran that should not", () => {
  assert.deepEqual(wrong, []);
});
