// The heatmap
const NAMES = { norm: "gradient norm", rms: "gradient root mean square", update_ratio: "update over weight", weight_norm: "weight norm" };
const choice = make("select", { "aria-label": "what the heatmap shows" }, ...Object.keys(data.grids).map((key) => make("option", { value: key }, NAMES[key])));
function range(grid) {
  const known = grid.cells.filter((cell) => cell !== NOTHING && cell !== ZERO && cell !== NONFINITE);
  let low = Infinity, high = -Infinity;
  for (const cell of known) { if (cell < low) low = cell; if (cell > high) high = cell; }
  return known.length ? [low, Math.max(high, low + 1)] : [0, 1];
}
const scale = make("p", { class: "legend" });
const rowHeight = Math.max(3, Math.min(24, 520 / base.layers.length));
const heat = overSteps(Math.round(base.layers.length * rowHeight) + 20, (svg, x, height) => {
  const grid = data.grids[choice.value], [low, high] = range(grid), rows = grid.layers.length, columns = grid.cells.length / rows;
  const canvas = make("canvas", { width: columns, height: rows });
  const context = canvas.getContext("2d"), image = context.createImageData(columns, rows);
  grid.cells.forEach((cell, i) => {
    const rgb = cell === NOTHING ? null : cell === ZERO ? [32, 35, 42] : cell === NONFINITE ? [216, 27, 96] : colour((cell - low) / (high - low));
    if (rgb) image.data.set([...rgb, 255], 4 * i);
  });
  context.putImageData(image, 0, 0);
  const inner = svg.clientWidth - LEFT - RIGHT, end = firstStep + columns * grid.width;
  svg.append(make("rect", { x: LEFT, y: 0, width: inner, height: height - 20, fill: "var(--line)" }));
  const picture = document.createElementNS(SVG, "image");
  for (const [name, value] of Object.entries({ x: LEFT, y: 0, width: (inner * (end - firstStep)) / span, height: height - 20,
    preserveAspectRatio: "none", href: canvas.toDataURL(), style: "image-rendering: pixelated" })) picture.setAttribute(name, value);
  svg.append(picture);
  const every = Math.ceil(13 / rowHeight);
  grid.layers.forEach((layer, i) => {
    if (i % every === 0) svg.append(make("text", { x: LEFT - 8, y: (i + 0.5) * rowHeight + 4, "text-anchor": "end" }, short(layer), make("title", {}, layer)));
  });
  marks(svg, x, height);
  stepAxis(svg, x, height);
  const ramp = `linear-gradient(90deg, ${VIRIDIS.map((rgb) => `rgb(${rgb})`)})`;
  scale.replaceChildren(make("span", {}, `${written(10 ** (low / 100), 2)} `, make("i", { class: "box", style: `width:120px;margin:0 4px;background:${ramp}` }), ` ${written(10 ** (high / 100), 2)}`),
    ...legend([...(grid.cells.includes(ZERO) ? [["zero", "#20232a", true]] : []), ...(grid.cells.includes(NONFINITE) ? [["NaN or infinite", "#d81b60", true]] : []),
      ["not measured", "var(--line)", true], ...MARKS]).childNodes);
});
choice.addEventListener("change", () => heat.redraw());
section("Layer by step", "The first layer is on top. Move over a chart to choose the step that all of them show.", make("p", { class: "legend" }, "Shown: ", choice), scale, heat);
