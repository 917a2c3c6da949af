// The peers: a map of their slots for the eye, a table of everything.

import { keep, make, say, set } from "./dom.js";
import * as format from "./format.js";

const FILTER_FROM = 9; // with fewer nobody has to search
const MAP_SLOTS_MAX = 32;
const ROLES = ["lost", "serves", "standby", "visitor"]; // in this order

const unknown = (value, show) => (value === undefined ? "–" : show(value));

const COLUMNS = [
  { name: "Peer", of: (peer) => peer.name.toLowerCase() },
  { name: "Role", of: (peer) => ROLES.indexOf(peer.role) },
  { name: "Host", of: (peer) => peer.host, text: (peer) => peer.host },
  { name: "Slots busy", number: true, of: (peer) => peer.busy },
  { name: "Load", number: true, of: (peer) => peer.load ?? -1, text: ({ load }) => unknown(load, (value) => value.toFixed(1)) },
  { name: "Memory", number: true, of: (peer) => peer.memory ?? -1, text: ({ memory }) => unknown(memory, format.bytes) },
  { name: "Received", number: true, of: (peer) => peer.received ?? -1, text: ({ received }) => unknown(received, format.bytes) },
  { name: "Sent", number: true, of: (peer) => peer.sent ?? -1, text: ({ sent }) => unknown(sent, format.bytes) },
  { name: "Holds", number: true, of: (peer) => peer.holds, text: ({ holds }) => (holds ? format.bytes(holds) : "–") },
];

let order = { column: 1, down: false };
let shown = null;

const table = document.getElementById("peer-table");
const filter = document.getElementById("peer-filter");
filter.addEventListener("input", () => shown && showPeers(shown));

export function showPeers(state) {
  shown = state;
  const peers = Object.entries(state.peers).map(([id, peer]) => ({ id, ...peer, role: roleOf(peer, state) }));
  peers.sort(compare);
  document.getElementById("peer-search").hidden = peers.length < FILTER_FROM;
  const sought = filter.value.trim().toLowerCase();
  const found = peers.filter(({ name, host }) => `${name} ${host}`.toLowerCase().includes(sought));
  showMap(peers);
  const hosts = new Set(peers.map(({ host }) => host)).size;
  table.classList.toggle("one-host", hosts < 2);
  showHead();
  const rows = found.length ? found : [{ id: "none" }];
  keep(table.tBodies[0], rows, ({ id }) => id, buildRow, updateRow);
}

// While a server is sought, the one that was is as good as lost.
function roleOf({ role }, { link }) {
  return role === "serves" && !link.live ? "lost" : role;
}

function compare(a, b) {
  const { of } = COLUMNS[order.column];
  const [x, y] = [of(a), of(b)];
  const by = x < y ? -1 : x > y ? 1 : 0;
  if (by) return order.down ? -by : by;
  return a.name.localeCompare(b.name, "en", { numeric: true }) || (a.id < b.id ? -1 : 1);
}

function showHead() {
  const head = table.tHead;
  if (!head.rows.length) {
    const row = make("tr");
    COLUMNS.forEach(({ name, number }, index) => {
      const button = make("button", { type: "button" }, name);
      button.addEventListener("click", () => sortBy(index, number));
      row.append(make("th", { scope: "col", className: number ? "number" : "" }, button));
    });
    head.append(row);
  }
  [...head.rows[0].children].forEach((cell, index) => {
    const sorted = index === order.column;
    set(cell, "aria-sort", sorted ? (order.down ? "descending" : "ascending") : null);
  });
}

function sortBy(column, number) {
  const down = order.column === column ? !order.down : Boolean(number);
  order = { column, down };
  showPeers(shown);
}

function buildRow({ id }) {
  if (id === "none") {
    const text = "No peer has this in its name or host.";
    return make("tr", {}, make("td", { colSpan: COLUMNS.length, className: "hint" }, text));
  }
  const row = make("tr", {}, make("th", { scope: "row" }));
  for (const { name, number } of COLUMNS.slice(1)) {
    const cell = make("td", { className: number ? "number" : name === "Role" ? "role" : "" });
    cell.dataset.label = name;
    row.append(cell);
  }
  row.children[1].append(make("span", { className: "badge" }), make("span"));
  const bar = make("span", { className: "bar slots" }, make("span"));
  row.children[3].append(make("span", { className: "slots-cell" }, bar, make("span")));
  return row;
}

function updateRow(row, peer) {
  if (peer.id === "none") return;
  set(row, "className", peer.role === "serves" ? "is-server" : "");
  say(row.children[0], peer.name);
  const [badge, more] = row.children[1].children;
  set(badge, "className", `badge ${peer.leaving ? "leaving" : peer.role}`);
  say(badge, (peer.role === "serves" ? "★ " : "") + peer.role + (peer.leaving ? ", leaving" : ""));
  say(more, peer.through ? ` through ${peer.through}` : "");
  const [bar, count] = row.children[3].firstElementChild.children;
  const share = peer.slots ? Math.min(1, peer.busy / peer.slots) : 0;
  bar.firstElementChild.style.width = `${100 * share}%`;
  bar.hidden = !peer.slots;
  say(count, peer.slots ? `${peer.busy} / ${peer.slots}` : "–");
  COLUMNS.forEach(({ text }, index) => {
    if (text) say(row.children[index], text(peer));
  });
}

function showMap(peers) {
  const cells = peers.filter(({ role }) => role !== "visitor");
  cells.sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }));
  keep(document.getElementById("map"), cells, ({ id }) => id, () => make("span"), updateCell);
}

function updateCell(cell, { name, role, slots, busy }) {
  const few = slots <= MAP_SLOTS_MAX;
  set(cell, "className", `cell${role === "serves" ? " is-server" : ""}${slots && few ? "" : " no-slots"}`);
  set(cell, "title", `${name}: ${role}, ${busy} of ${format.counted(slots, "slot")} busy`);
  if (!slots || !few) {
    say(cell, slots ? `${busy}/${slots}` : "0");
    return;
  }
  if (cell.children.length !== slots) cell.replaceChildren(...Array.from({ length: slots }, () => make("i")));
  [...cell.children].forEach((slot, index) => set(slot, "className", index < busy ? "busy" : ""));
}
