// What is long is asked for when a transaction is opened, and again when more of it has run; each
// second while it runs, as it may print.

const AGAIN_MILLISECONDS = 1000;

const held = new Map(); // by record: what was said, and of which moment

// Return what is known of a transaction that is open, and ask for more if there is; `then` is called
// when it has come.
export function unfolded(txn, then) {
  const tick = txn.state === "running" ? Math.floor(performance.now() / AGAIN_MILLISECONDS) : 0;
  const version = `${txn.state}/${txn.ran}/${tick}`;
  const known = held.get(txn.record) ?? { asking: false, asked: -Infinity };
  held.set(txn.record, known);
  const soon = performance.now() - known.asked < AGAIN_MILLISECONDS;
  if (known.version !== version && !known.asking && !soon) ask(txn.record, known, version, then);
  return known.said;
}

export function forget(record) {
  held.delete(record);
}

async function ask(record, known, version, then) {
  known.asking = true;
  known.asked = performance.now();
  try {
    const answer = await fetch(`/transactions/${encodeURIComponent(record)}`);
    if (answer.ok) {
      known.said = await answer.json();
      known.version = version;
    }
  } catch {
    // the dashboard is gone for a while; the next frame asks again
  }
  known.asking = false;
  then();
}
