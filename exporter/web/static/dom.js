// The only place that makes elements. Everybody who can reach Wok can type what is shown here: it becomes text nodes
// and the values of a few harmless attributes, never markup, and never an address outside http and https.

import { iso, visible } from "./format.js";

const ATTRIBUTES = new Set([
  "class", "id", "title", "datetime", "role", "scope", "type", "colspan", "value", "tabindex", "hidden",
  "data-state", "data-task", "aria-label", "aria-hidden", "aria-current", "aria-live",
]);

/** An element; `children` are texts, elements, or null for none. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (!ATTRIBUTES.has(name)) throw new Error(`the attribute ${name} is not allowed`);
    element.setAttribute(name, visible(value));
  }
  fill(element, ...children);
  return element;
}

/** Replace what is in an element. */
export function fill(element, ...children) {
  const given = children.flat().filter((child) => child !== null && child !== undefined);
  element.replaceChildren(...given.map((child) => (child instanceof Node ? child : visible(child))));
}

/** A sentence of the exporter's own, whose `code` is shown as such. */
export const prose = (text) => text.split("`").map((part, at) => (at % 2 ? h("code", {}, part) : part));

/** Change a text only where it differs: nothing is selected away under the reader, nothing is announced twice. */
export function say(element, text) {
  const shown = visible(text);
  if (element.textContent !== shown) element.textContent = shown;
}

/** A link that opens a task in this page; `pointLinks` gives it its address. */
export const taskLink = (id, attributes, ...children) => h("a", { ...attributes, "data-task": id }, ...children);

/** Let the links to tasks keep the view as it is now, `address(id)`, and mark those to the open task. */
export function pointLinks(address, open) {
  for (const link of document.querySelectorAll("a[data-task]")) {
    const id = link.dataset.task;
    const query = address(id);
    if (link.getAttribute("href") !== query && query.startsWith("?")) link.setAttribute("href", query);
    if (id === open) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
}

/** A link to a trace, or null without a template that leads to http or https. */
export function traceLink(template, traceId) {
  if (!template || !/^[0-9a-f]{32}$/.test(traceId)) return null;
  let url;
  try {
    url = new URL(template.replaceAll("{trace_id}", traceId));
  } catch {
    return null;
  }
  if (url.protocol !== "https:" && url.protocol !== "http:") return null;
  const element = h("a", { class: "quiet", "aria-label": "Open the trace in a new tab" }, "Open trace ↗");
  element.href = url.href;
  element.target = "_blank";
  element.rel = "noopener noreferrer";
  return element;
}

/** A time of the log; the tooltip has it in UTC. */
export function time(ms, shown) {
  const exact = iso(ms);
  return exact ? h("time", { datetime: exact, title: exact }, shown) : h("span", {}, shown);
}

const MARKS = { running: "▸", failed: "✕", lost: "◌", unknown: "?", done: "✓" };

/** The state of a task: a mark, a word, and a colour that says the same. */
export function badge(state) {
  const known = Object.hasOwn(MARKS, state) ? state : "unknown";
  return h("span", { class: "state", "data-state": known }, h("span", { class: "mark", "aria-hidden": "true" }, MARKS[known]), known);
}

/** A button that copies; `said` is told what happened. */
export function copyButton(text, label, said) {
  const button = h("button", { type: "button", class: "quiet", "aria-label": `Copy ${label}` }, "Copy");
  button.addEventListener("click", async (event) => {
    event.stopPropagation();
    const done = await copied(text);
    button.textContent = done ? "Copied" : "Not copied";
    said(done ? `Copied ${label}` : `The browser does not let this page copy: select ${label} by hand`);
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  return button;
}

async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Without TLS a browser has no clipboard for any host but this one; the old way still works.
    const field = document.createElement("textarea");
    const focused = document.activeElement;
    field.value = text;
    field.className = "offscreen";
    document.body.append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    focused?.focus();
    return done;
  }
}

/** Show a list of things, keeping the elements of those that stay: the page does not jump, focus is not lost.
 *  `make(item)` gives an element, `same(item)` a text that changes when the element must be made anew. */
export function keyed(parent, items, key, same, make) {
  const old = new Map();
  for (const child of parent.children) old.set(child.dataset.key, child);
  let at = parent.firstElementChild;
  for (const item of items) {
    const name = String(key(item));
    const version = same(item);
    let element = old.get(name);
    if (!element || element.version !== version) {
      const fresh = make(item);
      fresh.dataset.key = name;
      fresh.version = version;
      if (element) {
        const hadFocus = element.contains(document.activeElement);
        if (at === element) at = fresh;
        element.replaceWith(fresh);
        if (hadFocus) fresh.querySelector("a, button")?.focus({ preventScroll: true });
      }
      element = fresh;
    }
    old.delete(name);
    if (element === at) at = at.nextElementSibling;
    else parent.insertBefore(element, at);
  }
  for (const element of old.values()) element.remove();
}
