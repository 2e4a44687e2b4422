// Sorts the tables by a click on a column's head, lets the legend pick lines out of the charts, and
// opens what is folded before it is printed.
document.querySelectorAll("table.sortable").forEach((table) => {
  const body = table.tBodies[0];
  table.querySelectorAll("thead th button").forEach((button) => {
    const head = button.closest("th");
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      const value = (row) => {
        const text = row.cells[head.cellIndex].dataset.value ?? row.cells[head.cellIndex].innerText;
        const number = Number(text);
        return text === "" || Number.isNaN(number) ? text : number;
      };
      const order = (a, b) => {
        const [x, y] = [value(a), value(b)];
        if (x === "" || y === "") return (x === "") - (y === ""); // the unknown stays last
        const sign = typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(y);
        return up ? sign : -sign;
      };
      [...body.rows].sort(order).forEach((row) => body.append(row));
      table.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
    });
  });
});
document.querySelectorAll(".legend button").forEach((button) => {
  button.addEventListener("click", () => {
    button.setAttribute("aria-pressed", button.getAttribute("aria-pressed") !== "true");
    const picked = [...document.querySelectorAll(".legend button[aria-pressed=true]")];
    const names = new Set(picked.map((other) => other.dataset.name));
    document.querySelectorAll(".charts").forEach((charts) => {
      charts.classList.toggle("chosen", names.size > 0);
    });
    document.querySelectorAll(".charts .series").forEach((series) => {
      series.classList.toggle("on", names.has(series.dataset.name));
    });
  });
});
window.addEventListener("beforeprint", () => {
  document.querySelectorAll("details").forEach((details) => { details.open = true; });
});
