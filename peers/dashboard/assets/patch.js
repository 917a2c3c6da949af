// JSON merge patches (RFC 7396): null removes a key, objects are merged, all else is replaced.

export function patched(target, patch) {
  if (patch === null || typeof patch !== "object" || Array.isArray(patch)) return patch;
  const result = isPlain(target) ? { ...target } : {};
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete result[key];
    else result[key] = patched(result[key], value);
  }
  return result;
}

function isPlain(value) {
  return value !== null && typeof value === "object" && !Array.isArray(value);
}
