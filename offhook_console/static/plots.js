// A plot is a table first: each figure.plot holds its numbers as a table, and this draws them.
(() => {
  const colour = (name) => {
    const probe = document.createElement("i");
    probe.style.color = `var(${name})`;
    document.body.append(probe);
    const seen = getComputedStyle(probe).color;
    probe.remove();
    return seen;
  };
  const faint = (rgb, alpha) => rgb.replace(/^rgba?\(([^)]+)\)$/, (_, v) => `rgba(${v.split(",").slice(0, 3)}, ${alpha})`);

  const words = JSON.parse(document.querySelector("meta[name=words]").content);
  // What a person reads may have a decimal comma.
  const number = (cell) => { const said = cell.dataset.v ?? cell.textContent.trim(); return said === "" ? null : Number(said); };

  const ROUND = [1, 5, 10, 15, 30, 60, 120, 180, 240, 360, 720]; // minutes
  const WHOLE = [1, 2, 3, 4, 5, ...[10, 100, 1e3, 1e4, 1e5, 1e6].flatMap((n) => [n, 2 * n, 2.5 * n, 4 * n, 5 * n])]; // events
  const SPACE = 56; // pixels between two labels
  // Times are labelled at round minutes or hours; of equal labels in a row, such as dates, the first.
  const labelled = (labels, width) => {
    const firsts = labels.map((_, i) => i).filter((i) => i === 0 || labels[i] !== labels[i - 1]);
    const minutes = labels.map((label) => /^(\d\d):(\d\d)$/.exec(label)).map((m) => m && m[1] * 60 + +m[2]);
    const fits = (ticks) => ticks.length * SPACE <= width;
    const ticks = minutes.every((m) => m !== null)
      ? ROUND.map((step) => firsts.filter((i) => minutes[i] % step === 0))
      : [1, 2, 3, 5, 7, 10, 15, 30].map((step) => firsts.filter((_, n) => n % step === 0));
    return ticks.find(fits) ?? ticks.at(-1);
  };

  const draw = (figure) => {
    const table = figure.querySelector("table");
    const heads = [...table.tHead.rows[0].cells].slice(1);
    const rows = [...table.tBodies[0].rows];
    const labels = rows.map(({ cells: [head] }) => head.dataset.label ?? head.textContent.trim());
    const columns = heads.map((_, i) => rows.map((row) => number(row.cells[i + 1])));
    const stacked = figure.dataset.plot === "bars";
    const shown = columns.map((column) => [...column]);
    if (stacked) for (let c = shown.length - 2; c >= 0; c--) shown[c] = shown[c].map((v, i) => (v || 0) + (shown[c + 1][i] || 0));
    const target = figure.querySelector(".draw");
    target.replaceChildren();
    const ink = colour("--ink3"), line = colour("--line");
    const axis = { stroke: ink, grid: { stroke: line, width: 1 }, ticks: { show: false }, font: "11px Inter, system-ui, sans-serif", gap: 6 };
    const series = heads.map((head, i) => {
      const c = colour(`--${head.dataset.k}-on`);
      return stacked
        ? { label: head.textContent, stroke: c, fill: c, width: 0, paths: uPlot.paths.bars({ size: [0.72, 60], radius: 0.12 }), points: { show: false } }
        : { label: head.textContent, stroke: c, width: 1.75, fill: head.dataset.fill ? faint(c, 0.12) : undefined, dash: head.dataset.dash ? [5, 4] : undefined, points: { show: columns[i].filter((v) => v !== null).length < 24, size: 5, fill: c }, spanGaps: false };
    });
    const unit = figure.dataset.unit || "";
    new uPlot({
      width: target.clientWidth, height: target.clientHeight, legend: { show: false },
      cursor: { drag: { x: false, y: false }, points: { size: 5 } }, padding: [8, 20, 0, 0],
      scales: { x: { time: false, range: stacked ? (u, min, max) => [min - 0.6, max + 0.6] : undefined }, y: { range: (u, min, max) => [0, Math.max(1, max * 1.12)] } },
      axes: [
        { ...axis, grid: { show: false }, size: 24, splits: (u) => labelled(labels, u.width), values: (u, ticks) => ticks.map((t) => labels[t]) },
        { ...axis, size: 46, incrs: stacked ? WHOLE : undefined, values: (u, ticks) => ticks.map((t) => `${String(t >= 1000 ? t / 1000 + "k" : t).replace(".", words.decimal)}${unit}`), space: 32 },
      ],
      series: [{}, ...series],
    }, [labels.map((_, i) => i), ...shown], target);
  };
  const all = () => document.querySelectorAll("figure[data-plot]").forEach(draw);
  addEventListener("load", () => document.fonts.ready.then(all));
  addEventListener("themechange", all);
  addEventListener("fragmentschange", all);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", all);
  let late; addEventListener("resize", () => { clearTimeout(late); late = setTimeout(all, 120); });
})();
