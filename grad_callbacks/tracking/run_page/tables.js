// Tables, and what the slider's bar says
function table(id, title, columns, rows) {
  if (!rows.length) return;
  const body = rows.map((row) => {
    const line = make("tr", { "data-step": row.step }, ...columns.map(([key]) => make("td", key === "layers" ? { class: "names" } : String(row[key]).length < 18 ? { class: "tight" } : {},
      ...(KINDS.has(row[key]) && key.endsWith("kind") ? [make("i", { class: "dot", style: `background:${KINDS.get(row[key])}` })] : []),
      ...prose(key === "layers" ? row[key].replaceAll(", ", "\n") : row[key]))));
    line.addEventListener("click", () => goTo(row.step));
    return line;
  });
  section(title, "Click a row to show its step in the charts.", make("div", { class: "wide" }, make("table", { id },
    make("thead", {}, make("tr", {}, ...columns.map(([, name]) => make("th", {}, name)))), make("tbody", {}, ...body))));
}
table("alerts", "Alerts", [["step", "step"], ["kind", "kind"], ["severity", "severity"], ["cause", "likely cause"], ["message", "what was seen"], ["layers", "layers"], ["advice", "advice"]], data.alerts);
table("interventions", "Interventions", [["step", "step"], ["remedy", "remedy"], ["alert_kind", "against"], ["detail", "with what"]], data.interventions);
if (Object.keys(data.environment).length) {
  const list = make("dl", { style: "font-size:13px;margin-top:8px" });
  for (const [name, value] of Object.entries(data.environment)) list.append(make("dt", {}, name), make("dd", {}, value));
  page.append(make("section", { id: "environment" }, make("details", {}, make("summary", {}, "Environment"), list)));
}

listeners.push((step) => {
  slider.value = step;
  let nearest = 0;
  steps.step.forEach((at, i) => { if (Math.abs(at - step) < Math.abs(steps.step[nearest] - step)) nearest = i; });
  const parts = [`step ${step}`];
  if (steps.step.length) {
    parts.push(`norm ${steps.norm[nearest] === null ? "not finite" : written(steps.norm[nearest])}`);
    if (steps.loss[nearest] !== null) parts.push(`loss ${written(steps.loss[nearest])}`);
    parts.push(`rate ${written(steps.lr_effective[nearest])}`);
  }
  readout.textContent = parts.join(" · ");
});
for (const drawing of drawings) drawing.redraw();
goTo(data.alerts.length ? data.alerts[0].step : lastStep);
page.dataset.drawn = "yes";
