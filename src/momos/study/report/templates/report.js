"use strict";

// Tables: a heading sorts by its column, and again the other way. What has no value stays last.
function compare(a, b, numeric) {
  if (a === "" || b === "") return (a === "") - (b === "");
  return numeric ? Number(a) - Number(b) : a.localeCompare(b, "en", { numeric: true });
}

function sort(header) {
  const column = header.cellIndex;
  const numeric = header.classList.contains("number");
  const descending = header.getAttribute("aria-sort") === "ascending";
  const body = header.closest("table").tBodies[0];
  const value = (row) => row.cells[column].dataset.value;
  const sign = (a, b) => (a === "" || b === "" || !descending ? 1 : -1);
  const rows = [...body.rows].sort(
    (a, b) => sign(value(a), value(b)) * compare(value(a), value(b), numeric),
  );
  for (const other of header.parentElement.cells) other.setAttribute("aria-sort", "none");
  header.setAttribute("aria-sort", descending ? "descending" : "ascending");
  body.append(...rows);
  const order = descending ? "descending" : "ascending";
  document.getElementById("said").textContent = `sorted by ${header.textContent}, ${order}`;
}

for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => sort(button.parentElement));
}

// Mosaics: from the whole picture to sixteen times its width, about what is in the middle.
const MOST = 16;

function zoom(root, change) {
  const box = root.querySelector(".box");
  const drawing = root.querySelector(".drawing");
  const now = Number(root.dataset.level || 1);
  const level = change === 0 ? 1 : Math.min(MOST, Math.max(1, now * change));
  const middle = [
    (box.scrollLeft + box.clientWidth / 2) / box.scrollWidth,
    (box.scrollTop + box.clientHeight / 2) / box.scrollHeight,
  ];
  box.style.maxHeight = `${Math.max(box.clientHeight, 120)}px`;
  drawing.style.width = `${100 * level}%`;
  box.scrollLeft = middle[0] * box.scrollWidth - box.clientWidth / 2;
  box.scrollTop = middle[1] * box.scrollHeight - box.clientHeight / 2;
  if (level === 1) box.style.maxHeight = "";
  root.dataset.level = level;
  root.querySelector("output").textContent = `${Math.round(100 * level)} %`;
  root.querySelector("[data-zoom=in]").disabled = level === MOST;
  root.querySelector("[data-zoom=out]").disabled = level === 1;
}

const CHANGES = { in: 2, out: 0.5, whole: 0 };
const KEYS = { "+": 2, "=": 2, "-": 0.5, 0: 0 };

for (const root of document.querySelectorAll(".zoom")) {
  root.querySelector("[data-zoom=out]").disabled = true;
  for (const button of root.querySelectorAll("[data-zoom]")) {
    button.addEventListener("click", () => zoom(root, CHANGES[button.dataset.zoom]));
  }
  root.querySelector(".box").addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in KEYS)) return;
    event.preventDefault();
    zoom(root, KEYS[event.key]);
  });
}
