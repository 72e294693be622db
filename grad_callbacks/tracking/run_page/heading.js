// The heading
page.append(make("h1", {}, "Gradients", make("span", KINDS.has(data.verdict) ? { class: "chip", style: `background:${KINDS.get(data.verdict)}` } : { class: `chip ${data.verdict}` }, data.verdict),
  ...(data.outcome === data.verdict ? [] : [make("span", { class: `chip ${data.outcome}` }, data.outcome)]),
  make("span", { class: "name" }, data.name)));
document.title = `${data.verdict}, ${data.outcome}: ${data.name || "gradients"}`;
const summary = make("dl");
for (const [name, sentence] of data.summary) summary.append(make("dt", {}, name), make("dd", {}, ...prose(sentence)));
page.append(make("section", { id: "summary" }, summary));

// The slider of the step that all charts show
const slider = make("input", { type: "range", min: firstStep, max: lastStep, value: firstStep, "aria-label": "step" });
const readout = make("output");
slider.addEventListener("input", () => goTo(+slider.value));
page.append(make("div", { class: "bar" }, slider, readout));
