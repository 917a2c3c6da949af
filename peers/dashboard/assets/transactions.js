// Transactions: how far each is, where its time goes, why it failed; and the button that cancels.

import { keep, make, say, set } from "./dom.js";
import * as format from "./format.js";
import { notify } from "./saying.js";
import { now } from "./time.js";
import { forget, unfolded } from "./details.js";
import { buildTimeline, updateTimeline } from "./timeline.js";

const PAGE = 12;
const CANCEL_MILLISECONDS = 20000; // then the button may be pressed again
const STATES = ["running", "failed", "cancelled", "finished"];
const FILTERS = ["all", ...STATES];

let filter = "all";
let limit = PAGE;
let latest = null;
const opened = new Set();
const cancelling = new Set();

const list = document.getElementById("transaction-list");
const more = document.getElementById("more-transactions");
more.addEventListener("click", () => {
  limit += PAGE;
  showTransactions(latest);
});

// A retained result is a finished one that is kept for latecomers.
const plainState = (txn) => (txn.state === "retained" ? "finished" : txn.state);

export function showTransactions(state) {
  latest = state;
  const all = Object.entries(state.transactions).map(([record, txn]) => ({ record, ...txn }));
  all.sort(compare);
  showFilters(all);
  const found = filter === "all" ? all : all.filter((txn) => plainState(txn) === filter);
  const shown = found.slice(0, limit);
  const rows = shown.length ? shown : [{ record: `none-${all.length ? filter : "all"}` }];
  keep(list, rows, ({ record }) => record, build, update);
  more.hidden = found.length <= limit;
  say(more, `Show more (${format.number(found.length - shown.length)} not shown)`);
}

function compare(a, b) {
  const running = (b.state === "running") - (a.state === "running");
  if (running) return running;
  return (b.ended ?? b.began ?? 0) - (a.ended ?? a.began ?? 0) || (a.record < b.record ? -1 : 1);
}

function showFilters(all) {
  const counts = new Map(FILTERS.map((name) => [name, 0]));
  for (const txn of all) counts.set(plainState(txn), (counts.get(plainState(txn)) ?? 0) + 1);
  counts.set("all", all.length);
  const names = FILTERS.filter((name) => name === "all" || name === filter || counts.get(name));
  const build = (name) => {
    const button = make("button", { type: "button" });
    button.addEventListener("click", () => {
      filter = name;
      limit = PAGE;
      showTransactions(latest);
    });
    return button;
  };
  keep(document.getElementById("filters"), names, (name) => name, build, (button, name) => {
    say(button, `${name} ${format.number(counts.get(name))}`);
    set(button, "aria-pressed", String(name === filter));
  });
}

function build({ record }) {
  if (record.startsWith("none-")) return buildEmpty(record.slice(5));
  const title = make("h3", { id: `title-${record}` });
  const cancel = make("button", { type: "button", className: "danger" }, "Cancel");
  const toggle = make("button", { type: "button" }, "Details");
  toggle.setAttribute("aria-controls", `details-${record}`);
  toggle.addEventListener("click", () => {
    if (opened.delete(record)) forget(record);
    else opened.add(record);
    showTransactions(latest);
  });
  cancel.addEventListener("click", () => askAndCancel(record));
  const acts = make("div", { className: "acts" }, toggle, cancel);
  const head = make("div", { className: "card-head" }, title, make("span", { className: "badge" }), acts);
  const facts = make("p", { className: "facts" });
  const why = make("p", { className: "why" });
  const phases = make("div", { className: "phases" });
  const details = make("div", { className: "details", id: `details-${record}`, hidden: true });
  const card = make("li", { className: "card" }, head, facts, why, phases, details);
  card.setAttribute("aria-labelledby", title.id);
  return card;
}

function buildEmpty(which) {
  const empty = make("li", { className: "empty" });
  if (which !== "all") empty.append(`No transaction is ${which}.`);
  else empty.append("Nothing has been submitted. Try ", make("code", {}, "grid submit MODULE:JOB"), ".");
  return empty;
}

function update(card, txn) {
  if (txn.record.startsWith("none-")) return;
  const [head, facts, why, phases, details] = card.children;
  const [title, badge, acts] = head.children;
  const [toggle, cancel] = acts.children;
  const name = nameOf(txn);
  const running = txn.state === "running";
  const ending = running && cancelling.has(txn.record);
  if (!running) cancelling.delete(txn.record);
  say(title, name);
  set(badge, "className", `badge ${ending ? "cancelling" : txn.state}`);
  say(badge, ending ? "cancelling" : plainState(txn));
  cancel.hidden = !running;
  cancel.disabled = ending;
  set(cancel, "aria-label", `Cancel ${name}`);
  const open = opened.has(txn.record);
  set(toggle, "aria-expanded", String(open));
  set(toggle, "aria-label", `Details of ${name}`);
  say(facts, factsOf(txn));
  say(why, txn.why ?? "");
  set(why, "className", `why ${txn.state}`);
  why.hidden = !txn.why || open;
  showPhases(phases, txn);
  details.hidden = !open;
  if (open) showDetails(details, txn);
}

function nameOf({ name, detached, record }) {
  return name || `${detached ? "detached " : ""}${format.short(record)}`;
}

function factsOf(txn) {
  const facts = [];
  if (txn.name) facts.push(format.short(txn.record));
  if (txn.owners.length) facts.push(`of ${txn.owners.join(", ")}`);
  if (txn.detached) facts.push("detached");
  if (txn.ended) {
    const took = format.seconds(Math.max(0, txn.ended - txn.began));
    const whole = txn.items[1] && txn.items[0] === txn.items[1];
    facts.push(whole ? `${format.counted(txn.items[1], "item")} in ${took}` : `after ${took}`);
    facts.push(`ended ${format.long(now() - txn.ended)} ago`);
  } else {
    facts.push(`for ${format.long(now() - txn.began)}`);
  }
  if (txn.running) facts.push(`${format.counted(txn.running, "task")} under way`);
  if (txn.rate) facts.push(`${txn.rate >= 10 ? format.number(Math.round(txn.rate)) : txn.rate.toFixed(1)} items/s`);
  if (txn.left !== undefined && txn.state === "running") facts.push(`about ${format.long(txn.left)} left`);
  return facts.join(" · ");
}

function showPhases(node, txn) {
  const phases = [];
  const { state, items, partitions } = txn;
  if (state !== "finished" && state !== "retained") {
    if (items[1]) phases.push({ name: "map", part: items });
    if (partitions[1]) phases.push({ name: "reduce", part: partitions });
  }
  node.hidden = !phases.length;
  keep(node, phases, ({ name }) => name, buildPhase, updatePhase);
}

function buildPhase({ name }) {
  const bar = make("span", { className: `bar ${name}` }, make("span"));
  bar.setAttribute("role", "progressbar");
  bar.setAttribute("aria-label", name);
  return make(
    "div",
    { className: "phase" },
    make("span", { className: "name" }, name),
    bar,
    make("span", { className: "count" }),
  );
}

function updatePhase(node, { part: [done, total] }) {
  const [, bar, count] = node.children;
  const share = format.percent(done, total);
  bar.firstElementChild.style.width = `${(100 * done) / total}%`;
  set(bar, "aria-valuenow", share);
  say(count, `${format.number(done)} / ${format.number(total)} · ${share}%`);
}

function showDetails(node, txn) {
  const known = unfolded(txn, () => showTransactions(latest));
  const builders = {
    failure: () => buildFailure(known.failure, txn.state),
    timeline: () => buildTimeline(txn),
    prints: buildPrints,
  };
  const updates = {
    failure: () => {},
    timeline: (child) => updateTimeline(child, txn, known),
    prints: (child) => updatePrints(child, known.prints),
  };
  const parts = Object.keys(builders).filter((part) => part === "timeline" || known?.[part]);
  keep(node, parts, (part) => part, (part) => builders[part](), (child, part) => updates[part](child));
}

function buildPrints() {
  const text = make("pre", { tabIndex: 0 });
  text.setAttribute("role", "region");
  text.setAttribute("aria-label", "What its code prints");
  return make("div", { className: "prints" }, make("h3", {}, "What its code prints"), text);
}

// The latest stays in sight, unless somebody has scrolled back.
function updatePrints(box, prints) {
  const text = box.lastElementChild;
  const lines = prints.flatMap(([peer, , said]) => said.replace(/\n$/, "").split("\n").map((line) => `[${peer}] ${line}`));
  const followed = text.scrollTop + text.clientHeight >= text.scrollHeight - 4;
  say(text, lines.join("\n"));
  if (followed) text.scrollTop = text.scrollHeight;
}

function buildFailure({ message, peer, traceback }, state) {
  const [first, ...rest] = message.split("\n");
  const box = make("div", { className: `failure ${state}` }, make("p", { className: "what" }, first));
  if (rest.length) box.append(make("p", { className: "lines" }, rest.join("\n")));
  if (peer) box.append(make("p", {}, `on ${peer}`));
  if (traceback) {
    const text = make("pre", { tabIndex: 0 }, traceback);
    text.setAttribute("role", "region");
    text.setAttribute("aria-label", "Traceback");
    box.append(text);
  }
  return box;
}

function askAndCancel(record) {
  const dialog = document.getElementById("ask");
  const name = nameOf({ record, ...latest.transactions[record] });
  say(document.getElementById("ask-text"), `${name} ends for everyone who waits for it.`);
  dialog.returnValue = "no";
  dialog.addEventListener("close", () => dialog.returnValue === "yes" && cancel(record, name), { once: true });
  dialog.showModal();
}

async function cancel(record, name) {
  cancelling.add(record);
  showTransactions(latest);
  let said;
  try {
    const answer = await fetch("/cancel", {
      method: "POST",
      headers: {
        "Content-Type": "application/json",
        "X-Grid-Dashboard": document.querySelector("meta[name=change]").content,
      },
      body: JSON.stringify({ record }),
    });
    ({ said } = await answer.json());
    if (!answer.ok) cancelling.delete(record);
    setTimeout(() => cancelling.delete(record), CANCEL_MILLISECONDS);
  } catch {
    cancelling.delete(record);
    said = "grid dashboard does not answer.";
  }
  notify(`${name}: ${said}`);
  showTransactions(latest);
}
