// What each loss of a server took: a crash closes its links, a silent one was frozen or cut off.

import { keep, make, say } from "./dom.js";
import * as format from "./format.js";

export const KINDS = { closed: "crash", silent: "silence" };

export function showFailovers({ failovers }) {
  const rows = Object.values(failovers).sort((a, b) => b.term - a.term);
  const body = document.querySelector("#failover-table tbody");
  const shown = rows.length ? rows : [{ term: "none" }];
  keep(body, shown, ({ term }) => term, build, update);
}

function build({ term }) {
  if (term === "none") {
    const text = "None so far. Kill the server and see.";
    return make("tr", {}, make("td", { colSpan: 5, className: "hint" }, text));
  }
  const cell = (className) => make("td", { className });
  return make(
    "tr",
    {},
    make("th", { scope: "row" }),
    cell("number"),
    cell("number"),
    cell("number"),
    cell("minor"),
  );
}

function update(row, { how, term, server, task, seen }) {
  if (term === "none") return;
  const texts = [
    KINDS[how] ?? how,
    String(term),
    format.seconds(server),
    task === undefined ? "–" : format.seconds(task),
    seen === undefined ? "before this page" : format.clock(seen),
  ];
  texts.forEach((text, index) => say(row.children[index], text));
}
