// Light or dark, before anything is painted: a module would run after the first frame, and the page would flash.
// "auto" (nothing kept) follows the system. Storage may be forbidden; then a choice lasts as long as the page.
"use strict";

try {
  const kept = localStorage.getItem("theme");
  if (kept === "light" || kept === "dark") document.documentElement.dataset.theme = kept;
} catch {
  // the system's theme it is
}
