// Where the time of a transaction goes: its tasks along time, in a lane for each slot they needed.
//
// A gap in a lane is time in which that slot did nothing of this transaction.

import { draw, keep, make, say } from "./dom.js";
import * as format from "./format.js";
import { now } from "./time.js";

const KINDS = ["map", "reduce", "finish", "call"];
const COLOURS = { map: "map-colour", reduce: "reduce-colour" };
const COLUMNS = ["Tasks", "Number", "In all", "On average", "Longest"];
const CLASSES = ["", "number", "number", "number minor", "number"];
const AXIS = 22;
const GAP = 6; // between peers
const LANE_HEIGHTS = [[24, 14], [64, 8], [Infinity, 4]]; // up to so many lanes, this high
const WIDTH_MIN = 520;
const TICKS = 6;
const LABEL_HALF = 24;
const STEPS = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400];

const colourOf = (kind) => COLOURS[kind] ?? "other-colour";

export function buildTimeline({ record }) {
  const box = make("div", { className: "timeline" });
  const chart = make("div", { className: "chart", tabIndex: 0 });
  chart.setAttribute("role", "img");
  const table = make("table");
  const head = make("tr");
  COLUMNS.forEach((name, index) => head.append(make("th", { scope: "col", className: CLASSES[index] }, name)));
  table.append(make("caption", { className: "unseen" }, `Time of ${format.short(record)} by kind of task`));
  table.append(make("thead", {}, head), make("tbody"));
  box.append(
    make("h3", {}, "Where the time went"),
    make("p", { className: "hint" }),
    chart,
    make("div", { className: "scroll" }, table),
  );
  return box;
}

// `known` is what /transactions/RECORD said of it, or undefined while it has not.
export function updateTimeline(box, txn, known) {
  const [, hint, chart, scroll] = box.children;
  const tasks = (known?.tasks ?? []).map(([kind, peer, slot, began, ended]) => ({ kind, peer, slot, began, ended }));
  chart.hidden = scroll.hidden = !tasks.length;
  if (!tasks.length) {
    say(hint, known ? "No task of it has ended while this page was watching." : "Asking …");
    return;
  }
  const groups = lanesByPeer(tasks, known.peers);
  const from = tasks.reduce((first, { began }) => Math.min(first, began), Infinity);
  const end = tasks.reduce((last, { ended }) => Math.max(last, ended), 0);
  const to = txn.state === "running" ? Math.max(end, now()) : end;
  describe(hint, tasks, groups, to - from, txn.ran);
  chart.setAttribute("aria-label", hint.textContent);
  drawChart(chart, groups, from, Math.max(to, from + 0.01), `${txn.ran}/${chart.clientWidth}/${Math.round(to)}`);
  const rows = KINDS.map((kind) => ({ kind, own: tasks.filter((task) => task.kind === kind) }));
  keep(scroll.querySelector("tbody"), rows.filter(({ own }) => own.length), ({ kind }) => kind, buildRow, updateRow);
}

function describe(hint, tasks, groups, span, ran) {
  const lanes = groups.reduce((sum, { lanes: own }) => sum + own.length, 0);
  const busy = tasks.reduce((sum, { began, ended }) => sum + ended - began, 0);
  const share = span > 0 ? Math.min(100, Math.round((100 * busy) / (span * lanes))) : 100;
  const where = `${format.counted(lanes, "slot")} of ${format.counted(groups.length, "peer")}`;
  const latest = ran > tasks.length ? "the latest " : "";
  const what = `${latest}${format.counted(tasks.length, "task")} in ${format.seconds(span)} on ${where}`;
  say(hint, `${what[0].toUpperCase()}${what.slice(1)}; busy with it ${share} % of that time.`);
}

// For each peer its slots that had a task of this transaction, each with its tasks.
function lanesByPeer(tasks, peers) {
  const groups = peers.map((peer) => ({ peer, slots: new Map() }));
  for (const task of tasks) {
    const { slots } = groups[task.peer];
    if (!slots.has(task.slot)) slots.set(task.slot, []);
    slots.get(task.slot).push(task);
  }
  const byNumber = ([a], [b]) => a - b;
  return groups
    .map(({ peer, slots }) => ({ peer, lanes: [...slots].sort(byNumber).map(([, own]) => own) }))
    .sort((a, b) => a.peer.localeCompare(b.peer, "en", { numeric: true }));
}

function drawChart(chart, groups, from, to, version) {
  if (chart.dataset.version === version) return;
  chart.dataset.version = version;
  const width = Math.max(WIDTH_MIN, chart.clientWidth);
  const left = width < 700 ? 96 : 168;
  const count = groups.reduce((sum, { lanes }) => sum + lanes.length, 0);
  const [, height] = LANE_HEIGHTS.find(([most]) => count <= most);
  const total = AXIS + groups.reduce((sum, { lanes }) => sum + Math.max(lanes.length * height, 12) + GAP, 0);
  const svg = draw("svg", { viewBox: `0 0 ${width} ${total}`, width, height: total });
  const place = (time) => left + ((time - from) / (to - from)) * (width - left - 8);
  drawAxis(svg, from, to, place, total);
  let top = AXIS;
  for (const { peer, lanes } of groups) {
    const label = draw("text", { x: 0, y: top + 10 });
    label.textContent = clipped(peer, Math.floor(left / 6.6) - 1);
    const title = draw("title");
    title.textContent = peer;
    label.append(title);
    svg.append(label);
    lanes.forEach((tasks, index) => drawLane(svg, tasks, top + index * height, height, left, width, place));
    top += Math.max(lanes.length * height, 12) + GAP;
  }
  chart.replaceChildren(svg);
}

function drawLane(svg, tasks, y, height, left, width, place) {
  const thick = Math.max(2, height - 2);
  svg.append(draw("rect", { class: "lane", x: left, y, width: width - left - 8, height: thick, rx: 2 }));
  for (const { kind, began, ended } of tasks) {
    const x = place(began);
    const bar = draw("rect", {
      class: `${thick > 5 ? "task " : ""}${colourOf(kind)}`,
      x,
      y,
      width: Math.max(1.5, place(ended) - x),
      height: thick,
      rx: Math.min(2, thick / 2),
    });
    const title = draw("title");
    title.textContent = `${kind}: ${format.seconds(ended - began)}`;
    bar.append(title);
    svg.append(bar);
  }
}

function drawAxis(svg, from, to, place, total) {
  const right = place(to);
  const step = STEPS.find((size) => (to - from) / size <= TICKS) ?? (to - from) / TICKS;
  for (let time = 0; time <= to - from; time += step) {
    const x = place(from + time);
    svg.append(draw("line", { class: "grid-line", x1: x, x2: x, y1: AXIS - 4, y2: total }));
    const last = x > right - LABEL_HALF;
    const label = draw("text", { x, y: 11, "text-anchor": time ? (last ? "end" : "middle") : "start" });
    label.textContent = ticked(time);
    svg.append(label);
  }
}

function ticked(time) {
  return time < 60 ? `${Number(time.toFixed(2))} s` : format.long(time);
}

function clipped(text, most) {
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}

function buildRow({ kind }) {
  const mark = make("i", { className: colourOf(kind) });
  const name = make("span", { className: "legend" }, mark, kind);
  const cells = CLASSES.slice(1).map((className) => make("td", { className }));
  return make("tr", {}, make("th", { scope: "row" }, name), ...cells);
}

function updateRow(row, { own }) {
  const times = own.map(({ began, ended }) => ended - began);
  const sum = times.reduce((a, b) => a + b);
  const longest = times.reduce((a, b) => Math.max(a, b));
  const texts = [format.number(own.length), format.seconds(sum), format.seconds(sum / own.length), format.seconds(longest)];
  texts.forEach((text, index) => say(row.children[index + 1], text));
}
