// Numbers, sizes and times for people.

const UNITS = ["B", "kB", "MB", "GB", "TB", "PB"];

export function bytes(count) {
  let unit = 0;
  while (count >= 999.5 && unit < UNITS.length - 1) {
    count /= 1000;
    unit += 1;
  }
  return `${unit && count < 9.95 ? count.toFixed(1) : Math.round(count)} ${UNITS[unit]}`;
}

export function number(count) {
  return count.toLocaleString("en");
}

export function counted(count, what) {
  return `${number(count)} ${what}${count === 1 ? "" : "s"}`;
}

// A duration, as exact as it is short.
export function seconds(value) {
  if (value < 0.9995) return `${Math.round(value * 1000)} ms`;
  if (value < 9.995) return `${value.toFixed(2)} s`;
  if (value < 99.95) return `${value.toFixed(1)} s`;
  return long(value);
}

// A duration that grows while it is looked at: no fractions.
export function long(value) {
  const whole = Math.max(0, Math.round(value));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  const minutes = Math.floor((whole % 3600) / 60);
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${minutes} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

export function percent(part, whole) {
  if (!whole) return 0;
  // Not 100 before it is done, and not 0 once it has begun.
  const share = Math.round((100 * part) / whole);
  if (part < whole && share === 100) return 99;
  return part > 0 && share === 0 ? 1 : share;
}

export function clock(at) {
  return new Date(at * 1000).toLocaleTimeString([], { hour12: false });
}

export function short(record) {
  return record.slice(0, 12);
}
