// Active actors and CPU of each pod over time, looked at anew every two seconds.

// Pods beyond the last colour get the first ones again, with another dash.
const SERIES = [...document.styleSheets[0].cssRules[0].style].filter((name) => name.startsWith("--series-"));
const DASHES = [[1, 0], [6, 3], [2, 2]].flatMap((dash) => SERIES.map(() => dash));

const at = { field: "at", type: "temporal", title: null, axis: { format: "%H:%M:%S", labelOverlap: true } };
const pod = { field: "pod", type: "nominal" };
const legend = { orient: "bottom", title: null, columns: 2, labelLimit: 400, symbolSize: 300 };
const charts = { active: "active actors", cpu: "cores, app and sidecar" };
const spec = (field, title, told) => ({
  datasets: { pods: told.pods, changes: told.changes },
  width: "container",
  height: 200,
  autosize: { type: "fit-x", contains: "padding" },
  layer: [
    {
      data: { name: "pods" },
      mark: { type: "line", tooltip: true },
      encoding: {
        x: at,
        y: { field, type: "quantitative", title },
        color: { ...pod, legend, scale: { range: SERIES.map((name) => `var(${name})`) } },
        strokeDash: { ...pod, legend, scale: { range: DASHES } },
      },
    },
    {
      data: { name: "changes" },
      mark: { type: "rule", strokeDash: [4, 4], color: "var(--phase)" },
      encoding: { x: at, tooltip: { field: "version", title: "table version" } },
    },
  ],
});

// A chart without data has no size, and keeps none: it is made when there are some.
const views = {};

async function show(told) {
  document.getElementById("title").textContent = told.title;
  document.getElementById("problems").textContent = told.problems.join("\n");
  for (const [field, title] of Object.entries(charts)) {
    if (views[field]) {
      await views[field].data("pods", told.pods).data("changes", told.changes).runAsync();
    } else if (told.pods.some((sample) => sample[field] !== null)) {
      const drawn = await vegaEmbed(`#${field}`, spec(field, title, told), { actions: false, renderer: "svg" });
      views[field] = drawn.view;
    }
  }
}

async function look() {
  try {
    await show(await (await fetch("./samples")).json());
  } finally {
    setTimeout(look, 2000);
  }
}

look();
