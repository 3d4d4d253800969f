addEventListener("beforeprint", () => document.querySelectorAll("details.printed").forEach((part) => (part.open = true)));
(() => {
  const find = document.getElementById("find");
  if (!find) return;
  const field = find.querySelector("input"), told = find.querySelector("output");
  const arms = [...document.querySelectorAll("details.arm")].map((part) => ({
    part, name: part.querySelector("summary strong").textContent, rows: [...part.querySelectorAll("tbody tr")], texts: null,
  }));
  find.hidden = false;
  field.addEventListener("input", () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    let found = 0;
    for (const arm of arms) {
      arm.texts ??= arm.rows.map((row) => (arm.name + " " + row.textContent).toLowerCase());
      let here = 0;
      arm.rows.forEach((row, place) => {
        row.hidden = !words.every((word) => arm.texts[place].includes(word));
        here += !row.hidden;
      });
      arm.part.hidden = words.length > 0 && here === 0;
      arm.part.open = words.length > 0 && here > 0;
      found += here;
    }
    told.textContent = words.length ? `${found} of the facts listed here` : "";
  });
})();
for (const head of document.querySelectorAll(".facts thead th")) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...head.childNodes);
  head.append(button);
  button.addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    const body = head.closest("table").tBodies[0], place = head.cellIndex;
    const order = (a, b) => a.cells[place].textContent.localeCompare(b.cells[place].textContent, undefined, { numeric: true });
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    body.append(...[...body.rows].sort((a, b) => (down ? order(b, a) : order(a, b))));
  });
}
