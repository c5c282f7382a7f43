"use strict";

// A click on a column head sorts the table: numbers by size, missing values last. The next click reverses the order.
function valueOf(row, column) {
  const text = row.cells[column].textContent.trim();
  const number = parseFloat(text.replaceAll(",", "").replace("−", "-"));
  return text === "∞" ? Infinity : Number.isNaN(number) ? null : number;
}

function sortTable(head) {
  const table = head.closest("table");
  const column = head.cellIndex;
  const body = table.tBodies[0];
  const isText = head.classList.contains("text");
  const descending = head.getAttribute("aria-sort") === null ? !isText : head.getAttribute("aria-sort") === "ascending";
  const sign = descending ? -1 : 1;
  const rows = [...body.rows].sort((one, other) => {
    if (isText) return sign * one.cells[column].textContent.localeCompare(other.cells[column].textContent);
    const [a, b] = [valueOf(one, column), valueOf(other, column)];
    if (a === null || b === null) return (a === null) - (b === null);
    return a === b ? 0 : sign * (a < b ? -1 : 1);
  });
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", descending ? "descending" : "ascending");
  body.append(...rows);
}

for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => sortTable(button.closest("th")));
}

// Shows the values of a chart's lines under the pointer.
function startTips() {
  const tip = document.createElement("div");
  tip.id = "tip";
  tip.hidden = true;
  document.body.append(tip);
  for (const svg of document.querySelectorAll("svg[data-charts]")) {
    const charts = JSON.parse(svg.dataset.charts);
    svg.addEventListener("pointerleave", () => { tip.hidden = true; });
    svg.addEventListener("pointermove", (event) => {
      const frame = svg.getBoundingClientRect();
      const [px, py] = [(event.clientX - frame.left) / frame.width, (event.clientY - frame.top) / frame.height];
      const chart = charts.find(({ box }) => px >= box[0] && px <= box[2] && py >= box[1] && py <= box[3]);
      tip.hidden = !chart || chart.lines.length === 0;
      if (tip.hidden) return;
      const [low, high, isLog] = chart.x;
      const scale = isLog ? Math.log10 : (value) => value;
      const place = (value) => (scale(value) - scale(low)) / (scale(high) - scale(low));
      const wanted = (px - chart.box[0]) / (chart.box[2] - chart.box[0]);
      const nearest = (xs) => xs.reduce((best, x, i) => Math.abs(place(x) - wanted) < Math.abs(place(xs[best]) - wanted) ? i : best, 0);
      const values = chart.lines.filter((line) => line.x.length).map((line) => {
        const index = nearest(line.x);
        return { name: line.name, x: line.x[index], y: line.y[index] };
      });
      tip.textContent = [`${chart.xlabel} ${values[0].x}`,
        ...values.map(({ name, y }) => `${name}: ${y === null ? "–" : y}`)].join("\n");
      const left = Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 8);
      tip.style.left = `${left + window.scrollX}px`;
      tip.style.top = `${event.clientY + 14 + window.scrollY}px`;
    });
  }
}
startTips();

// Shows two pictures of one frame over each other, cut at a line; both move and zoom together.
function startViewer(data) {
  const part = (id) => document.getElementById(id);
  const stage = part("stage");
  const sides = { left: part("image-left"), right: part("image-right") };
  const view = { zoom: 1, x: 0, y: 0 };  // x, y: part that is moved out at the top left, in widths and heights of the stage

  function show() {
    const frame = Number(part("frame").value);
    const variable = part("variable") ? Number(part("variable").value) : 0;
    const picture = variable * data.frames.length + frame;  // all frames of the first variable, then those of the next
    const divide = Number(part("divide").value) / 10;
    part("frame-number").textContent = data.frames[frame];
    stage.style.aspectRatio = data.sizes[frame].join(" / ");  // clips may differ in size
    for (const [side, image] of Object.entries(sides)) {
      const method = data.methods[Number(part(side).value)];
      if (image.src !== method.pictures[picture]) image.src = method.pictures[picture];
      image.style.transform = `translate(${-100 * view.x * view.zoom}%, ${-100 * view.y * view.zoom}%) scale(${view.zoom})`;
      const psnr = method.psnr[picture];
      stage.querySelector(`.name.${side}`).textContent = method.name + (psnr === null ? "" : `, ${psnr.toFixed(2)} dB`);
    }
    const inside = (view.x + divide / 100 / view.zoom) * 100;  // the line in percent of the picture's own width
    sides.right.style.clipPath = `inset(0 0 0 ${inside}%)`;
    stage.querySelector(".divider").style.left = `${divide}%`;
  }

  function limit() {
    view.zoom = Math.min(16, Math.max(1, view.zoom));
    view.x = Math.min(1 - 1 / view.zoom, Math.max(0, view.x));
    view.y = Math.min(1 - 1 / view.zoom, Math.max(0, view.y));
    show();
  }

  for (const side of ["left", "right"]) {
    data.methods.forEach((method, index) => part(side).add(new Option(method.name, index)));
    part(side).value = data[side];
    part(side).addEventListener("change", show);
  }
  part("frame").addEventListener("input", show);
  if (part("variable")) part("variable").addEventListener("change", show);
  part("divide").addEventListener("input", show);
  part("reset").addEventListener("click", () => { Object.assign(view, { zoom: 1, x: 0, y: 0 }); show(); });
  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    const box = stage.getBoundingClientRect();
    const [x, y] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    const before = view.zoom;
    view.zoom = Math.min(16, Math.max(1, before * Math.exp(-event.deltaY / 400)));
    view.x += x / before - x / view.zoom;
    view.y += y / before - y / view.zoom;
    limit();
  }, { passive: false });
  stage.addEventListener("pointerdown", (event) => { stage.classList.add("held"); stage.setPointerCapture(event.pointerId); });
  stage.addEventListener("pointerup", () => stage.classList.remove("held"));
  stage.addEventListener("pointermove", (event) => {
    if (!stage.classList.contains("held")) return;
    const box = stage.getBoundingClientRect();
    view.x -= event.movementX / box.width / view.zoom;
    view.y -= event.movementY / box.height / view.zoom;
    limit();
  });
  show();
}

if (document.getElementById("viewer-data")) startViewer(JSON.parse(document.getElementById("viewer-data").textContent));
