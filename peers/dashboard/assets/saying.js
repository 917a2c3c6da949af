// What is said without being asked: to screen readers only, or shown for a while too.

import { say } from "./dom.js";

const SHOWN_MILLISECONDS = 6000;

let hiding;

export function announce(text) {
  say(document.getElementById("said"), text);
}

export function notify(text) {
  const toast = document.getElementById("toast");
  say(toast, text);
  clearTimeout(hiding);
  hiding = setTimeout(() => say(toast, ""), SHOWN_MILLISECONDS);
}
