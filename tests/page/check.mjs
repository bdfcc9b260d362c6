// node check.mjs FOLDER PAGE...: each page at a desk and on a phone, light and dark. Fails where a page is wider than its
// window, says anything in the console, asks for anything but itself, draws text too faint, or does not answer the keyboard.
// Chromium is spoken to over its debugging pipe.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const WINDOWS = [
  { name: "desk", width: 1280, height: 900, mobile: false },
  { name: "phone", width: 360, height: 800, mobile: true },
];
const SCHEMES = ["light", "dark"];
// The least contrast of text with what is behind it: WCAG 2, level AA.
const CONTRAST = 4.5;
// The least height and width of what fingers press, in CSS pixels: WCAG 2.2, level AA.
const TARGET = 24;
const PATIENCE = 60_000;

const [shots, ...pages] = process.argv.slice(2);
const profile = mkdtempSync(join(tmpdir(), "page-"));
const flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"];
const browser = spawn("chromium", [...flags, `--user-data-dir=${profile}`, "--remote-debugging-pipe", "about:blank"], {
  stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"],
});
const patience = setTimeout(() => browser.kill("SIGKILL"), PATIENCE * pages.length);

const waiting = new Map();
const listeners = new Set();
let received = "";
browser.stdio[4].setEncoding("utf8").on("data", (text) => {
  const messages = (received + text).split("\0");
  received = messages.pop();
  for (const message of messages.map((message) => JSON.parse(message))) {
    const answer = waiting.get(message.id);
    waiting.delete(message.id);
    if (!answer) listeners.forEach((listener) => listener(message));
    else if (message.error) answer.reject(new Error(message.error.message));
    else answer.resolve(message.result);
  }
});
browser.on("exit", () => waiting.forEach(({ reject }) => reject(new Error("Chromium has ended"))));

let count = 0;
function send(method, params = {}, sessionId = undefined) {
  const id = ++count;
  browser.stdio[3].write(JSON.stringify({ id, method, params, sessionId }) + "\0");
  return new Promise((resolve, reject) => waiting.set(id, { resolve, reject }));
}

// Runs in the page: texts that are too faint, and targets that are too small.
function faults(contrast, target) {
  const numbers = (colour) => colour.match(/[\d.]+/g).map(Number);
  const luminance = (colour) => {
    const linear = (c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4);
    const [red, green, blue] = numbers(colour).map(linear);
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const behind = (element) => {
    for (; element; element = element.parentElement) {
      const colour = getComputedStyle(element).backgroundColor;
      if ((numbers(colour)[3] ?? 1) === 1) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const found = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || !element.checkVisibility() || element.closest("script, noscript")) continue;
    const [light, dark] = [getComputedStyle(element).color, behind(element)].map(luminance).sort((a, b) => b - a);
    const ratio = (light + 0.05) / (dark + 0.05);
    if (ratio < contrast) found.push(`contrast ${ratio.toFixed(2)}: ${texts.currentNode.data.trim()}`);
  }
  for (const element of document.querySelectorAll("button, summary, label, input[type=range]")) {
    if (!element.checkVisibility()) continue;
    const { width, height } = element.getBoundingClientRect();
    if (Math.min(width, height) < target) found.push(`${width} x ${height}: ${element.outerHTML.slice(0, 60)}`);
  }
  return found;
}

async function check(url, name, window, scheme, scripts = true) {
  const { targetId } = await send("Target.createTarget", { url: "about:blank" });
  const { sessionId } = await send("Target.attachToTarget", { targetId, flatten: true });
  const tab = (method, params) => send(method, params, sessionId);
  const run = async (expression) => {
    const { result, exceptionDetails } = await tab("Runtime.evaluate", { expression, returnByValue: true });
    assert.equal(exceptionDetails, undefined, `${expression}: ${exceptionDetails?.exception?.description}`);
    return result.value;
  };
  const press = async (key) => {
    for (const type of ["rawKeyDown", "keyUp"]) {
      const code = { Tab: 9, ArrowLeft: 37, ArrowRight: 39, Home: 36, End: 35 }[key];
      await tab("Input.dispatchKeyEvent", { type, key, code: key, windowsVirtualKeyCode: code });
    }
  };
  const resize = (height) => tab("Emulation.setDeviceMetricsOverride", { ...window, height, deviceScaleFactor: 1 });
  // The whole page, as in a window that is high enough.
  const shot = async (path) => {
    await resize(Math.max(window.height, await run("document.documentElement.offsetHeight")));
    const { data } = await tab("Page.captureScreenshot");
    writeFileSync(join(shots, path), Buffer.from(data, "base64"));
    await resize(window.height);
  };

  const said = [];
  const asked = [];
  let loaded;
  const load = new Promise((resolve) => (loaded = resolve));
  const listener = ({ method, params, sessionId: from }) => {
    if (from !== sessionId) return;
    if (method === "Runtime.exceptionThrown") said.push(params.exceptionDetails.exception?.description);
    if (method === "Runtime.consoleAPICalled") said.push(params.args.map(({ value }) => value).join(" "));
    if (method === "Log.entryAdded") said.push(params.entry.text);
    if (method === "Network.requestWillBeSent") asked.push(params.request.url);
    if (method === "Page.loadEventFired") loaded();
  };
  listeners.add(listener);
  for (const domain of ["Page", "Runtime", "Log", "Network"]) await tab(`${domain}.enable`);
  await resize(window.height);
  await tab("Emulation.setScriptExecutionDisabled", { value: !scripts });
  const features = [
    { name: "prefers-color-scheme", value: scheme },
    { name: "prefers-reduced-motion", value: "reduce" },
  ];
  await tab("Emulation.setEmulatedMedia", { features });
  await tab("Page.navigate", { url });
  await load;

  const fits = async () => {
    const wide = await run("document.documentElement.scrollWidth");
    const room = await run("document.documentElement.clientWidth");
    // A page that is too wide makes a phone's window wider.
    const inner = await run("innerWidth");
    assert.ok(wide <= room && inner <= window.width, `${wide} wide, room for ${room} in a window of ${inner}`);
    assert.deepEqual(await run(`(${faults})(${CONTRAST}, ${TARGET})`), []);
  };
  await fits();
  await shot(`${name}-${window.name}-${scheme}${scripts ? "" : "-without-scripts"}.png`);
  await run("document.querySelector('details').open = true");
  await fits();
  await run("document.querySelector('details').open = false");

  if (scripts) {
    // With the keyboard alone: another method where there is one, then the slider back to the untrained policy.
    const shown = () => run("document.getElementById('now').textContent");
    const until = async (selector) => {
      for (let tabs = 0; tabs < 20; tabs++) {
        if (await run(`document.activeElement.matches("${selector}")`)) return;
        await press("Tab");
      }
      assert.fail(`no way by Tab to ${selector}`);
    };
    const methods = await run("document.querySelectorAll('[name=method]').length");
    const chosen = () => run("document.getElementById('chosen').textContent");
    const before = await chosen();
    await until("[name=method]");
    await press("ArrowRight");
    assert.equal((await chosen()) === before, methods === 1);
    await until("#step");
    await press("Home");
    assert.match(await shown(), /^step 0: distance/);
    assert.equal(await run("document.getElementById('after').textContent"), "0");
    await shot(`${name}-${window.name}-${scheme}-untrained.png`);
    await press("End");
    assert.doesNotMatch(await shown(), /^step 0:/);
  }

  assert.deepEqual(said, []);
  assert.deepEqual(asked, [url]);
  listeners.delete(listener);
  await send("Target.closeTarget", { targetId });
}

try {
  for (const page of pages.map((page) => resolve(page))) {
    const name = basename(dirname(page));
    for (const window of WINDOWS) {
      for (const scheme of SCHEMES) {
        await check(pathToFileURL(page).href, name, window, scheme);
        console.log(`${name}, ${window.name}, ${scheme}: passed`);
      }
      await check(pathToFileURL(page).href, name, window, "light", false);
      console.log(`${name}, ${window.name}, without scripts: passed`);
    }
  }
} finally {
  clearTimeout(patience);
  await send("Browser.close").catch(() => {});
  if (browser.exitCode === null && browser.signalCode === null) await new Promise((ended) => browser.on("exit", ended));
  rmSync(profile, { recursive: true, force: true });
}
