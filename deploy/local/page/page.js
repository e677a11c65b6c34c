// Draws production, consumption and grid power from Graphite's render API, and refreshes them.

const KINDS = ["production", "consumption", "grid"];
const RANGES = [
  { label: "15 min", seconds: 900 },
  { label: "1 h", seconds: 3600 },
  { label: "6 h", seconds: 6 * 3600 },
  { label: "24 h", seconds: 24 * 3600 },
  { label: "7 days", seconds: 7 * 24 * 3600 },
];
const REFRESH_INTERVAL_S = 5;
const RECENT_S = 900;
const STALE_AFTER_S = 90;
const RESPONSE_TIMEOUT_MS = 8000;

const prefix = document.documentElement.dataset.carbonPrefix;
const element = (id) => document.getElementById(id);

let range = RANGES[0];
let gateway = null;
let newest = {}; // by kind: { watts, time }

// --- Graphite ---

async function query(path, parameters) {
  const url = `${path}?${new URLSearchParams(parameters)}`;
  const response = await fetch(url, { signal: AbortSignal.timeout(RESPONSE_TIMEOUT_MS) });
  if (!response.ok) throw new Error(`${path} responded with status ${response.status}`);
  return response.json();
}

async function findGateways() {
  const nodes = await query("metrics/find", { query: `${prefix}.*.*.power_w`, format: "json" });
  const parts = nodes.map(({ path }) => path.slice(prefix.length + 1).split("."));
  const serials = parts.filter(([, kind]) => KINDS.includes(kind)).map(([serial]) => serial);
  return [...new Set(serials)].sort();
}

const metric = (kind) => `${prefix}.${gateway}.${kind}.power_w`;

function renderParameters(seconds, points) {
  const parameters = KINDS.map((kind) => ["target", metric(kind)]);
  parameters.push(["from", `-${seconds}s`], ["format", "json"]);
  if (points) parameters.push(["maxDataPoints", String(points)]);
  return parameters;
}

async function fetchSeries(seconds, points) {
  const series = await query("render", renderParameters(seconds, points));
  const byName = new Map(series.map(({ target, datapoints }) => [target, datapoints]));
  return Object.fromEntries(KINDS.map((kind) => [kind, byName.get(metric(kind)) ?? []]));
}

// --- The newest values ---

function newestOf(datapoints) {
  const last = datapoints.findLast(([watts]) => watts !== null);
  return last && { watts: last[0], time: last[1] };
}

// Adding zero turns -0.00, a watt that an inverter uses at night, into 0.00.
const signedKilowatts = (watts) => (Math.round(watts / 10) / 100 + 0).toFixed(2);
const kilowatts = (watts) => signedKilowatts(Math.abs(watts));

function summary() {
  const { production, grid } = newest;
  if (!grid) return production ? `Producing ${kilowatts(production.watts)} kW; this gateway does not measure the grid.` : "";
  if (Math.abs(grid.watts) < 5) return "Neither importing nor exporting.";
  if (grid.watts < 0) return `Exporting ${kilowatts(grid.watts)} kW: production is higher than consumption.`;
  if (production && production.watts > 5) return `Importing ${kilowatts(grid.watts)} kW: consumption is higher than production.`;
  return `Importing ${kilowatts(grid.watts)} kW: there is no production.`;
}

function age(seconds) {
  if (seconds < 120) return `${Math.max(0, Math.round(seconds))} s ago`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min ago`;
  return `${Math.round(seconds / 3600)} h ago`;
}

function showNewest() {
  for (const kind of KINDS) element(kind).textContent = newest[kind] ? (kind === "grid" ? kilowatts : signedKilowatts)(newest[kind].watts) : "–";
  const gridWatts = newest.grid?.watts;
  element("grid-direction").textContent = gridWatts === undefined ? "Grid" : gridWatts < 0 ? "Export" : "Import";
  element("consumption-note").textContent = newest.consumption ? "of the house" : "not measured";
  element("grid-note").textContent = gridWatts === undefined ? "not measured" : gridWatts < 0 ? "to the grid" : "from the grid";
  element("summary").textContent = summary();
  showAge();
}

function showAge() {
  const times = Object.values(newest).filter(Boolean).map(({ time }) => time);
  if (times.length === 0) return;
  const seconds = Date.now() / 1000 - Math.max(...times);
  const stale = seconds > STALE_AFTER_S;
  document.body.classList.toggle("stale", stale);
  element("age").textContent = `${stale ? "stale, " : ""}newest reading ${age(seconds)}`;
}

// --- The chart ---

// Plotly does not convert time zones, so it gets times of the browser's time zone.
function localTime(seconds) {
  const time = new Date(seconds * 1000);
  return new Date(time - time.getTimezoneOffset() * 60000).toISOString().slice(0, 19);
}

// Lines cross the empty slots between two polls, and are interrupted where polls are missing.
function withGaps(datapoints) {
  const known = datapoints.filter(([watts]) => watts !== null);
  const intervals = known.slice(1).map(([, time], i) => time - known[i][1]).sort((a, b) => a - b);
  const median = intervals[Math.floor(intervals.length / 2)] ?? 0;
  const maxInterval = Math.max(3 * median, 60);
  const points = [];
  known.forEach(([watts, time], i) => {
    if (i > 0 && time - known[i - 1][1] > maxInterval) points.push([null, time - 1]);
    points.push([watts, time]);
  });
  return points;
}

function trace(kind, datapoints, style, label) {
  const points = withGaps(datapoints);
  return {
    type: "scatter",
    mode: "lines",
    name: kind[0].toUpperCase() + kind.slice(1),
    x: points.map(([, time]) => localTime(time)),
    y: points.map(([watts]) => (watts === null ? null : watts / 1000)),
    customdata: points.map(([watts]) => (watts === null ? "" : label(watts))),
    hovertemplate: "%{customdata}<extra></extra>",
    ...style,
  };
}

const narrow = window.matchMedia("(max-width: 600px)");
const dark = window.matchMedia("(prefers-color-scheme: dark)");

function draw(series) {
  const css = getComputedStyle(document.documentElement);
  const colour = (name) => css.getPropertyValue(`--${name}`).trim();
  const area = (name) => ({ fill: "tozeroy", fillcolor: `${colour(name)}33` });
  const line = (name, dash) => ({ line: { color: colour(name), width: 2.5, dash, shape: "linear" } });
  const traces = [
    trace("production", series.production, { ...line("production", "solid"), ...area("production") },
      (watts) => `Production <b>${signedKilowatts(watts)} kW</b>`),
    trace("consumption", series.consumption, line("consumption", "solid"),
      (watts) => `Consumption <b>${signedKilowatts(watts)} kW</b>`),
    trace("grid", series.grid, { ...line("grid", "solid"), ...area("grid"), yaxis: "y2" },
      (watts) => `${watts < 0 ? "Export" : "Import"} <b>${kilowatts(watts)} kW</b>`),
  ];
  // Without an empty panel where the gateway does not measure the grid.
  const hasGrid = Boolean(newestOf(series.grid));
  if (!hasGrid) traces.pop();
  const now = Date.now() / 1000;
  const heading = (text, y) => ({
    text, y, x: 0, xref: "paper", yref: "paper", xanchor: "left", yanchor: "bottom", showarrow: false,
    font: { size: 13, color: colour("quiet") },
  });
  const swatch = (name, text) => `<span style="color:${colour(name)}">▬</span> ${text}`;
  const measured = ["production", "consumption"].filter((kind) => newestOf(series[kind]));
  const axis = { gridcolor: colour("line"), zerolinecolor: colour("quiet"), zerolinewidth: 1, ticksuffix: " kW", fixedrange: true, nticks: 6 };
  const layout = {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: colour("text"), family: getComputedStyle(document.body).fontFamily, size: narrow.matches ? 11 : 13 },
    margin: { l: 8, r: 8, t: 28, b: 8 },
    showlegend: false,
    hovermode: "x unified",
    hoversubplots: "axis",
    hoverlabel: { bgcolor: colour("surface"), bordercolor: colour("line"), font: { color: colour("text") } },
    uirevision: `${gateway} ${range.label}`,
    grid: hasGrid ? { rows: 2, columns: 1, subplots: [["xy"], ["xy2"]] } : undefined,
    xaxis: {
      type: "date", range: [localTime(now - range.seconds), localTime(now)], gridcolor: colour("line"), automargin: true,
      nticks: narrow.matches ? 4 : 9, hoverformat: range.seconds > 24 * 3600 ? "%a %d %b, %H:%M" : "%H:%M:%S",
      tickformat: range.seconds > 24 * 3600 ? "%a %d %b" : "%H:%M",
    },
    yaxis: { ...axis, domain: [hasGrid ? 0.48 : 0, 1], rangemode: "tozero", automargin: true },
    yaxis2: { ...axis, domain: [0, 0.37], rangemode: "tozero", automargin: true, nticks: 5 },
    annotations: [
      heading(measured.map((kind) => swatch(kind, kind)).join("   "), 1.005),
      heading(hasGrid ? swatch("grid", narrow.matches ? "grid: + import, − export" : "grid: above zero import, below zero export") : "", 0.375),
    ],
  };
  return Plotly.react(element("chart"), traces, layout, { displaylogo: false, displayModeBar: false, responsive: true });
}

// --- Refreshing ---

function showState(text) {
  element("state").textContent = text;
  element("state").hidden = !text;
}

async function refresh() {
  try {
    const gateways = await findGateways();
    showGateways(gateways);
    if (gateway === null) {
      showState("No readings yet. The first ones arrive seconds after the gateway responds; the terminal shows what is missing.");
      element("summary").textContent = "Waiting for the first reading";
      return;
    }
    const points = Math.max(200, Math.round(element("chart").clientWidth / 2));
    const [recent, series] = await Promise.all([fetchSeries(RECENT_S), fetchSeries(range.seconds, points)]);
    for (const kind of KINDS) newest[kind] = newestOf(recent[kind]) ?? newest[kind];
    showNewest();
    element("source").href = `render?${new URLSearchParams(renderParameters(range.seconds, points))}`;
    await draw(series);
    const empty = KINDS.every((kind) => !newestOf(series[kind]));
    showState(empty ? `No readings in the last ${range.label}.` : "");
  } catch (error) {
    console.error(error);
    showState(`Graphite does not respond; retrying every ${REFRESH_INTERVAL_S} s. Check that make run is still running.`);
  }
}

function showGateways(gateways) {
  if (!gateways.includes(gateway)) {
    gateway = gateways[0] ?? null;
    newest = {};
  }
  element("gateway-choice").hidden = gateways.length < 2;
  const select = element("gateway");
  const shown = [...select.options].map(({ value }) => value);
  if (shown.join() !== gateways.join()) select.replaceChildren(...gateways.map((serial) => new Option(serial, serial)));
  select.value = gateway;
}

let refreshed = Promise.resolve();
// One refresh at a time, so that an older response never replaces a newer one.
const refreshNext = () => (refreshed = refreshed.then(refresh));

for (const choice of RANGES) {
  const label = document.createElement("label");
  const input = Object.assign(document.createElement("input"), { type: "radio", name: "range", checked: choice === range });
  input.addEventListener("change", () => { range = choice; refreshNext(); });
  label.append(input, Object.assign(document.createElement("span"), { textContent: choice.label }));
  element("ranges").append(label);
}
element("gateway").addEventListener("change", ({ target }) => { gateway = target.value; newest = {}; refreshNext(); });
dark.addEventListener("change", refreshNext);
narrow.addEventListener("change", refreshNext);

await refreshNext();
setInterval(refreshNext, REFRESH_INTERVAL_S * 1000);
setInterval(showAge, 1000);
