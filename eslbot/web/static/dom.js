// Builds the page. All that it shows came from a caller, a bot or a PBX: it becomes text, never markup.

/** An element. `properties` are attributes (`class`, `data-…`, `aria-…`), or listeners (`on…`). */
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

/** Replaces a node's children; null is no child (replaceChildren would make a text of it). */
export function setChildren(node, ...children) {
  node.replaceChildren(...children.filter((child) => child != null));
}

/** Sets a node's text, unless it is the same: an unchanged node costs no layout. */
export function setText(node, text) {
  if (node.firstChild === null || node.firstChild.nodeValue !== text) node.textContent = text;
}

/** Sets an attribute, unless it is the same; null removes it. */
export function setAttr(node, name, value) {
  if (value === null) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
  } else if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

export const byId = (id) => document.getElementById(id);
