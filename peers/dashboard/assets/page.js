// The page: holds the state that server-sent events make, and has each part show it.

import { keep, make, say, set } from "./dom.js";
import * as format from "./format.js";
import { KINDS, showFailovers } from "./failovers.js";
import { showPeers } from "./peers.js";
import { patched } from "./patch.js";
import { announce } from "./saying.js";
import { now, setNow } from "./time.js";
import { showTransactions } from "./transactions.js";

const REOPEN_MILLISECONDS = 2000;

let state = {};
let connected = null; // null: never was
let drawing = false;
let announced = 0;

const at = (id) => document.getElementById(id);

function listen() {
  const source = new EventSource("/events");
  let whole = false;
  source.onopen = () => {
    whole = true; // the first frame is everything
  };
  source.onmessage = (message) => {
    const frame = JSON.parse(message.data);
    setNow(frame.now);
    state = patched(whole ? {} : state, frame.patch);
    whole = false;
    connected = true;
    later();
  };
  source.onerror = () => {
    connected = false;
    later();
    if (source.readyState === EventSource.CLOSED) {
      // It answered, but not with events: the token is of another run, or too many pages are open.
      source.close();
      setTimeout(listen, REOPEN_MILLISECONDS);
    }
  };
}

function later() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    show();
  });
}

function show() {
  showLink();
  if (!state.grid?.server) return; // none has answered yet
  showNotices();
  showTiles();
  showTransactions(state);
  showPeers(state);
  showFailovers(state);
  showEvents();
}

function showLink() {
  const { link = {}, grid } = state;
  const pill = at("link");
  let mode = "wait";
  let text = "connecting";
  if (connected === false) {
    mode = "cut";
    text = "no connection to grid dashboard; trying again";
  } else if (link.live) {
    mode = "live";
    text = `${grid.server} serves, term ${grid.term}`;
  } else if (grid?.server && link.since) {
    mode = "seeking";
    text = `server lost ${format.long(now() - link.since)} ago; looking for the next`;
  } else if (connected) {
    text = "waiting for the server to answer";
  }
  set(pill, "data-state", mode);
  say(pill, text);
  document.title = mode === "seeking" ? "(no server) peergrid" : "peergrid";
}

function showNotices() {
  const { lacking, warnings } = state.grid;
  const notices = warnings.map((text) => ({ text: `Warning: ${text}` }));
  if (lacking) {
    const more = format.counted(lacking, "more peer");
    notices.unshift({ text: `No quorum: no work is given until ${more} joined.` });
  }
  if (connected === false) {
    const text =
      "What is shown is old. If grid dashboard was started again, open the address that it printed.";
    notices.unshift({ text, bad: true });
  }
  const build = ({ bad }) => make("p", { className: bad ? "notice bad" : "notice" });
  keep(at("notices"), notices, ({ text }) => text, build, (node, { text }) => say(node, text));
}

function showTiles() {
  const { grid, link, peers, transactions } = state;
  const members = Object.values(peers);
  const working = members.filter((peer) => peer.role !== "visitor");
  const sum = (name) => members.reduce((total, peer) => total + (peer[name] ?? 0), 0);
  const running = Object.values(transactions).filter((txn) => txn.state === "running");
  const slots = sum("slots");
  const busy = sum("busy");
  const visitors = members.length - working.length;
  const tiles = [
    {
      name: "Server",
      big: link.live ? grid.server : "sought",
      more: link.live ? `${grid.address}, term ${grid.term}` : `it was ${grid.server}`,
    },
    {
      name: "Peers",
      big: format.number(working.length),
      more: visitors ? `and ${format.counted(visitors, "visitor")}` : "no visitors",
    },
    {
      name: "Slots busy",
      big: `${format.number(busy)} / ${format.number(slots)}`,
      share: slots ? Math.min(1, busy / slots) : 0,
    },
    {
      name: "Running",
      big: format.number(running.length),
      more: running.length === 1 ? "transaction" : "transactions",
    },
    { name: "Outputs held", big: format.bytes(sum("holds")), more: "by all peers" },
    failoverTile(),
  ];
  keep(at("tiles"), tiles, ({ name }) => name, buildTile, updateTile);
}

function failoverTile() {
  const name = "Last failover";
  const seen = Object.values(state.failovers).sort((a, b) => b.term - a.term)[0];
  if (!seen) return { name, big: "none", more: "since the grid began" };
  const first = seen.task === undefined ? "" : `, first task ${format.seconds(seen.task)}`;
  return { name, big: format.seconds(seen.server), more: `by ${KINDS[seen.how] ?? seen.how}${first}` };
}

function buildTile({ name }) {
  const tile = make("div", { className: "tile" });
  tile.append(make("dt", {}, name), make("dd", { className: "big" }), make("dd", { className: "more" }));
  return tile;
}

function updateTile(tile, { big, more, share }) {
  const [, first, second] = tile.children;
  say(first, big);
  if (share === undefined) {
    say(second, more);
    return;
  }
  if (!second.firstElementChild) {
    second.append(make("span", { className: "bar slots" }, make("span")));
  }
  second.firstElementChild.firstElementChild.style.width = `${100 * share}%`;
}

function showEvents() {
  const events = Object.entries(state.events)
    .map(([number, event]) => ({ number: Number(number), ...event }))
    .sort((a, b) => b.number - a.number);
  keep(
    at("events"),
    events,
    ({ number }) => number,
    ({ at: when, text, kind }) =>
      make(
        "li",
        { className: kind },
        make("time", {}, format.clock(when)),
        make("span", {}, text),
      ),
    () => {},
  );
  const latest = events[0];
  if (latest && announced && latest.number > announced) announce(latest.text);
  if (latest) announced = latest.number;
}

listen();
setInterval(() => {
  if (!document.hidden) later();
}, 1000);
document.addEventListener("visibilitychange", later);
window.addEventListener("resize", later);
