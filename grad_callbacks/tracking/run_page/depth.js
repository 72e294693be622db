// The profile over depth, and the histograms, at the chosen step
const pair = make("div", { class: "two" });
page.append(pair);
const rms = data.grids.rms, depth = rms.layers.length, tall = Math.round(depth * Math.max(6, Math.min(24, 520 / depth))) + 26;
function column(step) {
  const columns = rms.cells.length / depth;
  let at = Math.max(0, Math.min(columns - 1, Math.floor((step - rms.first) / rms.width)));
  const filled = (c) => rms.layers.some((_, row) => rms.cells[row * columns + c] !== NOTHING);
  for (let away = 0; away < columns; away++) {
    if (at - away >= 0 && filled(at - away)) { at -= away; break; }
    if (at + away < columns && filled(at + away)) { at += away; break; }
  }
  return rms.layers.map((_, row) => { const cell = rms.cells[row * columns + at]; return [NOTHING, ZERO, NONFINITE].includes(cell) ? NaN : cell / 100; });
}
const profile = make("svg", { height: tall, role: "img" });
const profileLegend = make("p", { class: "legend" });
const shownProfiles = data.profiles.map(([step, ink, name]) => [name, ink, column(step), step]);
const rmsRange = range(rms).map((value) => value / 100);
function drawProfile() {
  if (!profile.clientWidth) return;
  const wide = profile.clientWidth, left = 150, bottom = tall - 22, [low, high] = [rmsRange[0] - 0.1, rmsRange[1] + 0.1];
  const x = (v) => left + ((v - low) / (high - low)) * (wide - left - 16), y = (row) => ((row + 0.5) * bottom) / depth;
  profile.replaceChildren();
  const step = Math.max(1, Math.ceil((high - low) / 6));
  for (let power = Math.ceil(low); power <= high; power += step) profile.append(
    make("line", { x1: x(power), x2: x(power), y1: 0, y2: bottom, stroke: "var(--line)" }),
    make("text", { x: x(power), y: tall - 6, "text-anchor": "middle" }, written(10 ** power, 1)));
  const every = Math.ceil((13 * depth) / bottom);
  rms.layers.forEach((layer, i) => { if (i % every === 0) profile.append(make("text", { x: left - 8, y: y(i) + 4, "text-anchor": "end" }, short(layer).slice(-23), make("title", {}, layer))); });
  const all = [...shownProfiles, ["chosen step", "currentColor", column(current), current]];
  all.forEach(([name, ink, values, at], place) => {
    let path = "", pen = "M";
    values.forEach((value, row) => { if (Number.isNaN(value)) { pen = "M"; return; } path += `${pen}${x(value).toFixed(1)} ${y(row).toFixed(1)}`; pen = "L"; });
    profile.append(make("path", { d: path, fill: "none", stroke: ink, "stroke-width": 2, "stroke-dasharray": place === all.length - 1 ? "3 3" : "" }));
    values.forEach((value, row) => { if (!Number.isNaN(value)) profile.append(make("circle", { cx: x(value), cy: y(row), r: 2.5, fill: ink },
      make("title", {}, `${rms.layers[row]}, step ${at}: ${written(10 ** value)}`))); });
  });
  profileLegend.replaceChildren(...legend(all.map(([name, ink, , at]) => [`${name} (${at})`, ink])).childNodes);
}
new ResizeObserver(drawProfile).observe(profile);
listeners.push(drawProfile);
pair.append(section("Gradient over depth", "Root mean square of each layer's gradient entries, first layer on top. A line that leans left at the top: gradients vanish on their way back.", profileLegend, profile));

if (data.histograms.length) {
  const title = make("span");
  const box = make("svg", { height: tall, role: "img" });
  const MAGMA = [[250, 250, 250], [252, 197, 140], [241, 96, 93], [158, 47, 127], [68, 15, 118], [0, 0, 4]];
  const drawHistogram = () => {
    if (!box.clientWidth) return;
    const taken = data.histograms.reduce((best, entry) => (Math.abs(entry.step - current) < Math.abs(best.step - current) ? entry : best));
    const rows = taken.layers.length, bins = taken.shares[0].length, left = 150, bottom = tall - 22, inner = box.clientWidth - left - 16;
    // The decades that hold anything in any histogram, so that the axis stays put.
    const used = [...Array(bins).keys()].filter((bin) => data.histograms.some((entry) => entry.shares.some((row) => row[bin] > 0.002)));
    const low = Math.max(0, used[0] - 1), high = Math.min(bins, used[used.length - 1] + 2), many = high - low;
    box.replaceChildren(make("rect", { x: left, y: 0, width: inner, height: bottom, fill: "#fafafa" }));
    taken.shares.forEach((row, i) => { for (let bin = low; bin < high; bin++) if (row[bin] > 0) box.append(make("rect", {
      x: left + ((bin - low) * inner) / many, y: (i * bottom) / rows, width: inner / many + 0.5, height: bottom / rows - 1, fill: `rgb(${colour(row[bin] / 0.2, MAGMA)})` },
      make("title", {}, `${taken.layers[i]}: ${(row[bin] * 100).toFixed(1)}% of the entries`))); });
    const every = Math.ceil((13 * rows) / bottom);
    taken.layers.forEach((layer, i) => { if (i % every === 0) box.append(make("text", { x: left - 8, y: ((i + 0.5) * bottom) / rows + 4, "text-anchor": "end" }, short(layer).slice(-23))); });
    const decades = Math.max(1, Math.ceil(many / data.bins.per_decade / 7));
    for (let power = data.bins.lowest; power <= data.bins.highest; power += 1) {
      const bin = (power - data.bins.lowest) * data.bins.per_decade + 1;
      if (bin >= low + (low === 0 ? many / 16 : 0) && bin <= high && power % decades === 0) box.append(make("text", { x: left + ((bin - low) * inner) / many, y: tall - 6, "text-anchor": "middle" }, written(10 ** power, 1)));
    }
    if (low === 0) box.append(make("text", { x: left, y: tall - 6, "text-anchor": "start" }, "less"));
    title.textContent = ` at step ${taken.step}`;
  };
  new ResizeObserver(drawHistogram).observe(box);
  listeners.push(drawHistogram);
  const part = section("Size of the gradient's entries", `Share of each layer's entries by their size, dark is many; the nearest of ${data.histograms.length} histograms of the run.`, box);
  part.querySelector("h2").append(title);
  pair.append(part);
}
