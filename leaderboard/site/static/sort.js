// Makes the columns of tables marked `data-sortable` sortable. Without this file the tables are complete, in their own order.
for (const table of document.querySelectorAll("table[data-sortable]")) {
  const body = table.tBodies[0];
  const headers = [...table.tHead.rows[0].cells];
  const original = [...body.rows];

  const valueOf = (row, column) => {
    const cell = row.cells[column];
    if (cell.dataset.sort !== undefined) return Number(cell.dataset.sort);
    const text = cell.textContent.trim();
    const number = Number(text.replaceAll(",", ""));
    return text === "–" || text === "" ? null : Number.isNaN(number) ? text : number;
  };

  const compare = (a, b) => {
    if (a === null || b === null) return a === b ? 0 : a === null ? Infinity : -Infinity;
    return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
  };

  headers.forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      const next = { none: "ascending", ascending: "descending", descending: "none" }[header.ariaSort ?? "none"];
      headers.forEach((other) => other.removeAttribute("aria-sort"));
      if (next !== "none") header.setAttribute("aria-sort", next);
      const sign = next === "descending" ? -1 : 1;
      const order = (a, b) => {
        const difference = compare(valueOf(a, column), valueOf(b, column));
        return Math.abs(difference) === Infinity ? difference : sign * difference; // empty cells stay last
      };
      body.append(...(next === "none" ? original : [...original].sort(order)));
    });
  });
}
