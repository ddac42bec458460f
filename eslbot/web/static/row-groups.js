// A sorted list of rows in groups: the browser lays out only the groups in sight. Watching 500 rows one by one cost a
// phone half of its frames.

import { el } from "./dom.js";

/** Rows of a group; a group of twice as many is split. */
const GROUP_SIZE = 16;

export class RowGroups {
  /** `place` holds the groups; the row with the greatest `rank(row)` is first; `onScroll()` is called when other groups come into sight. */
  constructor(place, rank, onScroll) {
    this.place = place;
    this.rank = rank;
    this.visible = new Set();
    this.watcher = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        if (entry.isIntersecting) this.visible.add(entry.target);
        else this.visible.delete(entry.target);
      }
      onScroll();
    }, { rootMargin: "200px" });
  }

  insert(row) {
    const rank = this.rank(row);
    let group = this.place.firstElementChild ?? this.createGroup(null);
    while (group.nextElementSibling !== null && this.rank(group.lastElementChild) > rank) group = group.nextElementSibling;
    let before = group.firstElementChild;
    while (before !== null && this.rank(before) > rank) before = before.nextElementSibling;
    group.insertBefore(row, before);
    if (group.childElementCount >= 2 * GROUP_SIZE) {
      const second = this.createGroup(group.nextElementSibling);
      second.append(...[...group.children].slice(GROUP_SIZE));
      setHeight(second);
    }
    setHeight(group);
  }

  remove(row) {
    const group = row.parentElement;
    row.remove();
    if (group.childElementCount > 0) setHeight(group);
    else {
      this.watcher.unobserve(group);
      this.visible.delete(group);
      group.remove();
    }
  }

  /** The rows of the groups in sight. */
  *inSight() {
    for (const group of this.visible) yield* group.children;
  }

  createGroup(before) {
    const group = el("div", { role: "presentation", class: "rows" });
    this.place.insertBefore(group, before);
    this.watcher.observe(group);
    return group;
  }
}

/** Tells CSS the height of a group that was never laid out. */
function setHeight(group) {
  group.style.setProperty("--rows", String(group.childElementCount));
}
