// Everything shown came from a caller, a bot or a PBX: it becomes text, never markup.

/** An element. Properties: `class`, `data-…`, `aria-…` and other attributes; `on…` are listeners. */
export function el(name, properties = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? "" : String(value));
  }
  for (const child of children) {
    if (child !== undefined && child !== null) node.append(child instanceof Node ? child : String(child));
  }
  return node;
}

/** These children instead of those there are; null is none (to replaceChildren it is a text). */
export function fill(node, ...children) {
  node.replaceChildren(...children.filter((child) => child != null));
}

/** Changes a text only where it is another one: an unchanged node costs no layout. */
export function write(node, text) {
  if (node.firstChild === null || node.firstChild.nodeValue !== text) node.textContent = text;
}

/** Changes an attribute only where it is another one; null takes it away. */
export function mark(node, name, value) {
  if (value === null) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
  } else if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

export const byId = (id) => document.getElementById(id);
