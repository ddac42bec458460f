// Rows in their order, in groups: the browser lays a group out only where it is in sight. 500 rows that it watched one
// by one cost a phone half of its frames.

import { el } from "./dom.js";

/** Rows of a group; one with twice as many becomes two. */
const ROWS = 16;

export class Rows {
  /** `place` holds the groups; the row with the greatest `rank(row)` comes first; `seen()` is called when others are in sight. */
  constructor(place, rank, seen) {
    this.place = place;
    this.rank = rank;
    this.visible = new Set();
    this.watcher = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        if (entry.isIntersecting) this.visible.add(entry.target);
        else this.visible.delete(entry.target);
      }
      seen();
    }, { rootMargin: "200px" });
  }

  insert(row) {
    const rank = this.rank(row);
    let group = this.place.firstElementChild ?? this.begin(null);
    while (group.nextElementSibling !== null && this.rank(group.lastElementChild) > rank) group = group.nextElementSibling;
    let before = group.firstElementChild;
    while (before !== null && this.rank(before) > rank) before = before.nextElementSibling;
    group.insertBefore(row, before);
    if (group.childElementCount >= 2 * ROWS) {
      const second = this.begin(group.nextElementSibling);
      second.append(...[...group.children].slice(ROWS));
      measure(second);
    }
    measure(group);
  }

  remove(row) {
    const group = row.parentElement;
    row.remove();
    if (group.childElementCount > 0) measure(group);
    else {
      this.watcher.unobserve(group);
      this.visible.delete(group);
      group.remove();
    }
  }

  /** The rows in sight, and some around them. */
  *inSight() {
    for (const group of this.visible) yield* group.children;
  }

  begin(before) {
    const group = el("div", { role: "presentation", class: "rows" });
    this.place.insertBefore(group, before);
    this.watcher.observe(group);
    return group;
  }
}

/** How high a group is that was never laid out. */
function measure(group) {
  group.style.setProperty("--rows", String(group.childElementCount));
}
