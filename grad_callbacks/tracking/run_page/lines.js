// Lines over steps
function lines(title, height, series) {
  const shown = series.map(([name, ink, values]) => [name, ink, values.map((value) => (value === null ? NaN : value))])
    .filter(([, , values]) => values.some(Number.isFinite));
  if (!shown.length) return;
  const all = shown.flatMap(([, , values]) => values.filter(Number.isFinite));
  const positive = all.filter((value) => value > 0);
  const most = (values, better) => values.reduce((best, value) => (better(value, best) ? value : best), values[0]);
  const high = most(all, (a, b) => a > b), lowest = most(all, (a, b) => a < b);
  const least = most(positive, (a, b) => a < b);
  const log = lowest >= 0 && positive.length > 0 && high > 20 * least;
  const low = log ? least : lowest, put = log ? (v) => Math.log10(Math.max(v, least)) : (v) => v;
  const room = (put(high) - put(low)) * 0.06 || Math.abs(put(high)) * 0.1 || 1;
  const from = put(low) - room, to = put(high) + room;
  const ticks = [];
  if (log) for (let power = Math.ceil(from); power <= to; power++) ticks.push(10 ** power);
  if (ticks.length < 2) {  // round numbers, four or so
    const rough = Math.max((high - low) / 4, Math.abs(high) * 1e-9, 1e-300), unit = 10 ** Math.floor(Math.log10(rough));
    const every = [1, 2, 5, 10].map((m) => m * unit).find((tick) => tick >= rough);
    ticks.length = 0;
    if (high === low) ticks.push(low);
    else for (let i = Math.ceil(low / every); i * every <= high; i++) ticks.push(i * every);
    if (!ticks.length) ticks.push(low, high);
  }
  const digits = [2, 3, 4, 5, 6].find((n) => new Set(ticks.map((tick) => written(tick, n))).size === ticks.length) || 7;
  const sparse = Math.ceil(ticks.length / 6);
  const chart = overSteps(height, (svg, x) => {
    const y = (v) => 6 + (1 - (put(v) - from) / (to - from)) * (height - 30);
    ticks.filter((_, i) => i % sparse === 0).forEach((tick) => svg.append(
      make("line", { x1: LEFT, x2: svg.clientWidth - RIGHT, y1: y(tick), y2: y(tick), stroke: "var(--line)" }),
      make("text", { x: LEFT - 8, y: y(tick) + 4, "text-anchor": "end" }, written(tick, digits))));
    marks(svg, x, height);
    shown.forEach(([, ink, values], place) => {
      let path = "", pen = "M";
      values.forEach((value, i) => {
        if (!Number.isFinite(value)) { pen = "M"; return; }
        path += `${pen}${x(data.steps.step[i]).toFixed(1)} ${y(value).toFixed(1)}`;
        pen = "L";
      });
      svg.append(make("path", { d: path, fill: "none", stroke: ink, "stroke-width": shown.length > 1 && place === 0 ? 2.6 : 1.5, "stroke-linejoin": "round" }));
    });
    stepAxis(svg, x, height);
  });
  section(title, log ? `Logarithmic scale${lowest === 0 ? "; zero, as of a skipped step, is drawn at the bottom" : ""}.` : "", legend([...(shown.length > 1 ? shown.map(([name, ink]) => [name, ink]) : []), ...MARKS]), chart);
}
const steps = data.steps;
if (steps.step.length) {
  lines("Gradient norm, before and after clipping", 220, [["before clipping", "var(--before)", steps.norm], ["of the step taken", "var(--after)", steps.norm_clipped]]);
  lines("Learning rate in effect", 120, [["learning rate", "var(--lr)", steps.lr_effective]]);
  lines("Training loss", 150, [["training loss", "var(--loss)", steps.loss]]);
}
