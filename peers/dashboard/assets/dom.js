// Building and updating the page. Text is only ever set as text, and only where it has changed: what
// is being read, selected or focused stays as it is.

export function make(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) set(node, name, value);
  node.append(...children);
  return node;
}

export function draw(tag, attributes = {}) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

// A property, or an attribute where there is none. null takes an attribute away.
export function set(node, name, value) {
  if (name in node && !name.includes("-")) {
    if (node[name] !== value) node[name] = value;
  } else if (value === null || value === false) {
    node.removeAttribute(name);
  } else if (node.getAttribute(name) !== String(value)) {
    node.setAttribute(name, value);
  }
}

export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// Make the children of a node be those of `items`, in their order: `build(item)` makes a new one,
// `update(node, item)` brings it up to date. Nodes whose key is still there are kept, and not moved
// unless the order has changed.
export function keep(parent, items, keyOf, build, update) {
  const wanted = new Set(items.map((item) => String(keyOf(item))));
  for (const node of [...parent.children]) if (!wanted.has(node.dataset.key)) node.remove();
  const present = new Map([...parent.children].map((node) => [node.dataset.key, node]));
  let place = parent.firstElementChild;
  for (const item of items) {
    const key = String(keyOf(item));
    const node = present.get(key) ?? build(item);
    node.dataset.key = key;
    if (node === place) place = place.nextElementSibling;
    else parent.insertBefore(node, place);
    update(node, item);
  }
}
