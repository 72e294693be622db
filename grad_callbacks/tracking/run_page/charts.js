// What all charts over steps share.
const LEFT = 168, RIGHT = 14;  // margins, the same in every chart so that their steps are aligned

const written = (value, digits = 3) =>
  value === null || value === undefined || Number.isNaN(value) ? "–" : !Number.isFinite(value) ? "infinite"
    : value === 0 ? "0" : Math.abs(value) >= 1e-3 && Math.abs(value) < 1e5 ? String(+value.toPrecision(digits)) : value.toExponential(digits - 1).replace(/\.0+e/, "e");
const short = (name) => (name.length > 26 ? "…" + name.slice(-25) : name);

// Kinds of alert and their colours, in the order of legends.
const KINDS = new Map(data.kinds);

// Grids come as 16-bit integers: hundredths of log10, and three codes for cells without a logarithm.
const NOTHING = -32768, ZERO = -32767, NONFINITE = 32767;
for (const grid of Object.values(data.grids)) {
  const bytes = Uint8Array.from(atob(grid.cells), (letter) => letter.charCodeAt(0));
  grid.cells = new Int16Array(bytes.buffer);
}
const base = data.grids.norm;
const firstStep = base.first, lastStep = base.last;
const span = Math.max(1, lastStep - firstStep + 1);

// Colours: viridis, by seven of its points.
const VIRIDIS = [[68, 1, 84], [70, 50, 127], [54, 92, 141], [39, 127, 142], [31, 161, 135], [74, 194, 109], [159, 218, 58], [253, 231, 37]];
function colour(share, stops = VIRIDIS) {
  const at = Math.max(0, Math.min(1, share)) * (stops.length - 1), low = Math.min(stops.length - 2, Math.floor(at));
  return stops[low].map((from, i) => Math.round(from + (stops[low + 1][i] - from) * (at - low)));
}

const listeners = [];
let current = firstStep;
function goTo(step) {
  current = Math.max(firstStep, Math.min(lastStep, Math.round(step)));
  for (const listener of listeners) listener(current);
}
const shareOf = (step) => (step - firstStep + 0.5) / span;

function section(title, hint, ...content) {
  const box = make("section", {}, make("h2", {}, title));
  if (hint) box.append(make("p", { class: "hint" }, hint));
  box.append(...content);
  page.append(box);
  return box;
}

function legend(entries) {
  return make("p", { class: "legend" }, ...entries.map(([name, ink, box]) =>
    make("span", {}, make("i", box ? { class: "box", style: `background:${ink}` } : { style: `border-color:${ink}` }), name)));
}

// A drawing over steps: `draw(svg, width, height)` is called when the page is complete and whenever the width changes.
const drawings = [];
function overSteps(height, draw) {
  const svg = make("svg", { height, role: "img" });
  const cursor = make("line", { y1: 0, y2: height - 18, stroke: "currentColor", "stroke-dasharray": "2 3", "stroke-width": 1 });
  const x = (step) => LEFT + shareOf(step) * (svg.clientWidth - LEFT - RIGHT);
  const place = () => { cursor.setAttribute("x1", x(current)); cursor.setAttribute("x2", x(current)); };
  const redraw = () => {
    svg.replaceChildren();
    if (!svg.clientWidth) return;
    draw(svg, x, height);
    svg.append(cursor);
    place();
  };
  const follow = (event) => {
    const inside = event.clientX - svg.getBoundingClientRect().left;
    goTo(firstStep + ((inside - LEFT) / (svg.clientWidth - LEFT - RIGHT)) * span - 0.5);
  };
  svg.addEventListener("pointermove", (event) => { if (event.buttons || event.pointerType === "mouse") follow(event); });
  svg.addEventListener("pointerdown", follow);
  new ResizeObserver(redraw).observe(svg);
  listeners.push(place);
  svg.redraw = redraw;
  drawings.push(svg);
  return svg;
}

function stepAxis(svg, x, height) {
  const rough = span / 8, power = 10 ** Math.floor(Math.log10(Math.max(1, rough)));
  const every = Math.max(1, [1, 2, 5, 10].map((m) => m * power).find((tick) => tick >= rough));
  for (let step = Math.ceil(firstStep / every) * every; step <= lastStep; step += every)
    svg.append(make("text", { x: x(step), y: height - 4, "text-anchor": "middle" }, step));
  svg.append(make("text", { x: LEFT - 8, y: height - 4, "text-anchor": "end" }, "step"));
}

function marks(svg, x, height) {
  const alerts = [...KINDS].map(([kind, ink]) => [data.alerts.filter((alert) => alert.kind === kind), ink, "5 4", 0]);
  for (const [list, ink, dash, lift] of [[data.interventions, "var(--act)", "", 8], ...alerts])
    for (const step of new Set(list.map((entry) => entry.step))) {
      const here = list.filter((entry) => entry.step === step);
      const what = here.map((entry) => entry.remedy || `${entry.kind} (${entry.severity})`).join(", ");
      const note = () => make("title", {}, `step ${step}: ${what}`);
      svg.append(make("line", { x1: x(step), x2: x(step), y1: 0, y2: height - 18, stroke: ink, "stroke-width": 1.3, "stroke-dasharray": dash, opacity: 0.8 }, note()),
        make("path", { d: `M${x(step) - 5} ${lift}h10l-5 7z`, fill: ink }, note()));
    }
}

const MARKS = [...KINDS].filter(([kind]) => data.alerts.some((alert) => alert.kind === kind)).map(([kind, ink]) => [`${kind} alert`, ink]);
if (data.interventions.length) MARKS.push(["intervention", "var(--act)"]);
