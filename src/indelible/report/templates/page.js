addEventListener("beforeprint", () => document.querySelectorAll("details.printed").forEach((part) => (part.open = true)));

for (const tools of document.querySelectorAll(".tools")) {
  tools.hidden = false;
  const said = document.createElement("output");
  tools.append(said);
  const text = (button) => button.nextElementSibling.content.textContent;
  const save = (kind, type, content) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([content], { type }));
    link.download = `${tools.dataset.name}.${kind}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  const copy = async (content) => {
    try {
      await navigator.clipboard.writeText(content);
    } catch {
      const field = Object.assign(document.createElement("textarea"), { value: content });
      document.body.append(field);
      field.select();
      document.execCommand("copy");
      field.remove();
    }
    said.textContent = "copied";
    setTimeout(() => (said.textContent = ""), 2000);
  };
  const markdown = () => {
    const cells = (row) => [...row.cells].map((cell) => cell.textContent.trim().replace(/\s+/g, " ").replace(/\|/g, "\\|"));
    const rows = [...tools.parentElement.querySelectorAll("tr")].map(cells);
    const line = (row) => `| ${row.join(" | ")} |`;
    return [line(rows[0]), line(rows[0].map(() => "---")), ...rows.slice(1).map(line)].join("\n") + "\n";
  };
  const alone = () => {
    const drawn = [...tools.parentElement.querySelectorAll("svg")].find((one) => one.getClientRects().length);
    const copied = drawn.cloneNode(true), box = drawn.viewBox.baseVal;
    copied.setAttribute("width", `${box.width}pt`);
    copied.setAttribute("height", `${box.height}pt`);
    copied.setAttribute("style", "background: #fff; color: #5c6670");
    return new XMLSerializer().serializeToString(copied).replace(/var\(--[\w-]+, ([^)]*)\)/g, "$1");
  };
  tools.addEventListener("click", ({ target: button }) => {
    if (button.dataset.do === "svg") save("svg", "image/svg+xml", alone());
    if (button.dataset.do === "csv") save("csv", "text/csv", text(button));
    if (button.dataset.do === "latex") copy(text(button));
    if (button.dataset.do === "markdown") copy(markdown());
  });
}

(() => {
  const find = document.getElementById("find");
  if (!find) return;
  const rows = [...document.querySelectorAll(".matrix tbody tr")].map((row) => {
    const behind = document.getElementById(row.id.replace("r", "f"));
    return { row, behind, text: null };
  });
  find.hidden = false;
  const show = () => {
    const { words, set, relation, outcome, arm } = Object.fromEntries(new FormData(find));
    const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
    let found = 0;
    for (const one of rows) {
      const cells = [...one.row.cells].slice(3), asked = arm === "" ? cells : [cells[Number(arm)]];
      if (wanted.length) one.text ??= (one.row.textContent + " " + one.behind.textContent).toLowerCase();
      const fits =
        (!set || one.row.dataset.set === set) &&
        (!relation || one.row.dataset.relation === relation) &&
        (outcome ? asked.some((cell) => cell.classList.contains(outcome)) : arm === "" || asked[0].textContent !== "") &&
        wanted.every((word) => one.text.includes(word));
      one.row.hidden = !fits;
      found += fits;
    }
    find.querySelector("output").textContent = found === rows.length ? "" : `${found} of ${rows.length} facts`;
  };
  find.addEventListener("input", show);
  find.addEventListener("submit", (event) => event.preventDefault());
  // Who came to a fact from this page goes back to where that was; who came by a link from elsewhere, to its row.
  let inside = false;
  const opened = () => document.querySelector(".fact:target");
  const close = () => (inside ? history.back() : (location.hash = opened().id.replace("f", "r")));
  addEventListener("hashchange", () => (inside = opened() !== null));
  addEventListener("keydown", (event) => {
    if (event.key === "Escape" && opened()) close();
  });
  addEventListener("click", (event) => {
    if (!event.target.matches(".fact .close")) return;
    event.preventDefault();
    close();
  });
})();

for (const head of document.querySelectorAll(".sortable thead th")) {
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
