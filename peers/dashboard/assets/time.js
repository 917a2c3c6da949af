// The time of day at the host of `grid dashboard`, which gives all times of this page.

let offset = 0;

export function setNow(seconds) {
  offset = seconds - Date.now() / 1000;
}

export function now() {
  return Date.now() / 1000 + offset;
}
