// Draws the charts, and lets all of them show the same part of the run.

const drawn = [];

async function draw(figure) {
  const chart = figure.querySelector(".chart");
  const spec = JSON.parse(figure.querySelector("script").textContent);
  const options = {
    actions: false,
    defaultStyle: false,
    mode: "vega-lite",
    renderer: "svg",
    tooltip: { disableDefaultStyle: true },
  };
  const { view } = await vegaEmbed(chart.firstElementChild, spec, options);
  if (view.getState().signals && "from" in view.getState().signals) {
    const whole = [view.signal("from"), view.signal("to")];
    drawn.push({ view, whole });
    letZoom(chart, view);
  }
}

// Every chart goes to the part of it that lies in [from, to], in milliseconds since the start of the run; a chart that
// has no part of it stays as it is.
function show(from, to) {
  for (const { view, whole } of drawn) {
    const part = [Math.max(from, whole[0]), Math.min(to, whole[1])];
    const [first, last] = part[1] - part[0] >= 1000 ? part : whole;
    view.signal("from", first).signal("to", last).runAsync();
  }
  document.getElementById("whole").hidden = from === -Infinity;
}

function letZoom(chart, view) {
  let start = null;
  const brush = document.createElement("div");
  brush.className = "brush";
  const place = (event) => {
    const x = event.clientX - chart.getBoundingClientRect().left;
    const left = view.origin()[0];
    return Math.min(Math.max(x, left), left + view.width());
  };
  const time = (x) => +view.scale("x").invert(x - view.origin()[0]);

  chart.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || event.pointerType === "touch") return; // a finger scrolls
    start = place(event);
    chart.setPointerCapture(event.pointerId);
  });
  chart.addEventListener("pointermove", (event) => {
    if (start === null) return;
    const now = place(event);
    brush.style.left = `${Math.min(start, now)}px`;
    brush.style.width = `${Math.abs(now - start)}px`;
    chart.append(brush);
  });
  const end = (event) => {
    if (start === null) return;
    const [left, right] = [start, place(event)].sort((one, other) => one - other);
    start = null;
    brush.remove();
    if (event.type === "pointerup" && right - left > 6 && time(right) - time(left) >= 1000) {
      show(time(left), time(right));
    }
  };
  chart.addEventListener("pointerup", end);
  chart.addEventListener("pointercancel", end);
  chart.addEventListener("dblclick", () => show(-Infinity, Infinity));
}

document.getElementById("whole").addEventListener("click", () => show(-Infinity, Infinity));

// One after the other: the first ones are there while the last ones are still being drawn.
(async () => {
  for (const figure of document.querySelectorAll("figure")) {
    await draw(figure);
  }
  document.documentElement.dataset.drawn = String(document.querySelectorAll(".chart svg").length);
})();
