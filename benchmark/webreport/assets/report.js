"use strict";
/* One page from data/board.js; the data of a row come from data/row-<n>.js when the row is opened. */
const multirater = { board: null, rows: {}, last: 0 };

(() => {
  const $ = (id) => document.getElementById(id);
  const ARROWS = { higher: " ↑", lower: " ↓", "target 0": " → 0" };
  const sorting = { board: null, cases: null, scores: null };
  let limit = 300; // rows drawn at once: more take a browser longer than a reader waits for a filter

  /* ---- small helpers ---------------------------------------------------------------------- */

  const ESCAPES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
  const esc = (text) => String(text ?? "").replace(/[&<>"']/g, (c) => ESCAPES[c]);
  const fixed = (value, digits) => (value === null || value === undefined ? "" : value.toFixed(digits).replace("-", "−"));

  /* Which of two values stands first: numbers before text before nothing, nothing last in both directions. */
  function compare(a, b, down) {
    const none = (v) => v === null || v === undefined || v === "";
    if (none(a) || none(b)) return none(a) - none(b);
    if (typeof a === "number" && typeof b === "number") return down ? b - a : a - b;
    const order = String(a).localeCompare(String(b), "en", { numeric: true });
    return down ? -order : order;
  }

  function sorted(rows, state, columns) {
    const column = state && columns.find((c) => c.key === state.key);
    if (!column) return rows;
    return rows.slice().sort((a, b) => compare(column.value(a), column.value(b), state.down));
  }

  /* Every word must be there; a word after a minus must not. */
  function matcher(text) {
    const words = text.toLowerCase().split(/\s+/).filter((w) => w && w !== "-");
    const wanted = words.filter((w) => !w.startsWith("-"));
    const refused = words.filter((w) => w.startsWith("-")).map((w) => w.slice(1));
    return (hay) => wanted.every((w) => hay.includes(w)) && !refused.some((w) => hay.includes(w));
  }

  /* columns: {key, label, title, text, value(row), html(row), css(row), down} */
  function fill(table, columns, rows, which, redraw, attributes) {
    const state = sorting[which];
    const head = columns.map((c) => {
      const on = state && state.key === c.key;
      const mark = on ? (state.down ? " ▼" : " ▲") : "";
      const sort = on ? (state.down ? "descending" : "ascending") : "none";
      return `<th class="${c.text ? "text" : ""}" aria-sort="${sort}"><button type="button" data-key="${esc(c.key)}" `
        + `title="${esc(c.title || "")}">${esc(c.label)}${mark}</button></th>`;
    });
    const body = sorted(rows, state, columns).slice(0, limit).map((row) => {
      const cells = columns.map((c) => {
        const css = [c.text ? "text" : "", c.css ? c.css(row) : ""].join(" ").trim();
        return `<td${css ? ` class="${css}"` : ""}>${c.html ? c.html(row) : esc(c.value(row))}</td>`;
      });
      return `<tr ${attributes ? attributes(row) : ""}>${cells.join("")}</tr>`;
    });
    table.tHead.innerHTML = `<tr>${head.join("")}</tr>`;
    if (rows.length > limit) {
      body.push(`<tr class="more"><td class="text" colspan="${columns.length}"><button type="button">show all `
        + `${rows.length} rows (${limit} are shown)</button></td></tr>`);
    }
    table.tBodies[0].innerHTML = body.join("");
    const more = table.tBodies[0].querySelector("tr.more button");
    if (more) more.onclick = (event) => { event.stopPropagation(); limit = Infinity; redraw(); };
    table.tHead.onclick = (event) => {
      const button = event.target.closest("button");
      if (!button) return;
      const column = columns.find((c) => c.key === button.dataset.key);
      const again = sorting[which] && sorting[which].key === column.key;
      sorting[which] = { key: column.key, down: again ? !sorting[which].down : Boolean(column.down) };
      redraw();
    };
  }

  function figureCards(figures) {
    return figures.map((f) => {
      const links = ["pdf", "csv"].filter((k) => f[k]).map((k) => `<a href="${esc(f[k])}">${k.toUpperCase()}</a>`);
      return `<figure data-kind="${esc(f.kind)}"><a href="${esc(f.png)}"><img loading="lazy" src="${esc(f.png)}" `
        + `alt="${esc(f.said)}"></a><figcaption>${esc(f.kind)}: ${esc(f.said)} (${links.join(", ")})</figcaption></figure>`;
    }).join("");
  }

  /* ---- the table of all rows -------------------------------------------------------------- */

  const chosenGroups = () => ($("group").value === "all" ? multirater.board.groups
    : [multirater.board.groups[Number($("group").value)]]);

  function metricColumns() {
    const seen = new Map();
    for (const group of chosenGroups()) {
      for (const column of group.columns[$("columns").value] || []) seen.set(column.metric, column);
    }
    return [...seen.values()].map((c) => ({
      key: c.metric,
      label: c.label + (ARROWS[c.way] || ""),
      title: `${c.metric}: ${c.note}`,
      down: c.way === "higher",
      value: (line) => (line.scores[c.metric] ? (c.way === "target 0" ? Math.abs(line.scores[c.metric][0])
        : line.scores[c.metric][0]) : null),
      html: (line) => {
        const score = line.scores[c.metric];
        if (!score) return "n/a";
        const ci = score[1] && $("intervals").checked ? ` <span class="ci">[${fixed(score[1][0], c.digits)}, ${fixed(score[1][1], c.digits)}]</span>` : "";
        return `<span title="${score[2]} cases">${fixed(score[0], c.digits)}${score[3]}</span>${ci}`;
      },
      css: (line) => line.place[c.metric] || "",
    }));
  }

  const number = (key, label, digits) => ({
    key, label, value: (line) => line[key], html: (line) => fixed(line[key], digits),
  });

  function boardColumns() {
    const columns = [
      { key: "name", label: "Method", text: true, value: (l) => l.name,
        html: (l) => `<a href="#row/${l.row}">${esc(l.name)}</a>` },
      { key: "output", label: "Output", text: true, value: (l) => l.output || "no result",
        css: (l) => (l.output ? "" : "warn") },
      { key: "S", label: "S", value: (l) => l.S },
    ];
    if ($("group").value === "all") {
      columns.unshift({ key: "group", label: "Data", text: true, value: (l) => multirater.board.groups[l.group].title });
    }
    if ($("columns").value === "cost") {
      columns.push(number("train_s", "Training [s]", 1), number("predict_s", "Prediction [s]", 1),
        number("memory_mb", "Peak memory [MB]", 0));
    } else {
      columns.push(...metricColumns());
    }
    columns.push({ key: "runs", label: "Runs", text: true,
      value: (l) => (l.folds.length ? `fold ${l.folds.join(",")}; seed ${l.seeds.join(",")}` : ""),
      html: (l) => esc(l.folds.length ? `fold ${l.folds.join(",")}; seed ${l.seeds.join(",")}` : "")
        + (l.missing ? ` <span class="warn">${l.missing} cell${l.missing > 1 ? "s" : ""} without a result</span>` : "")
        + (l.not_run ? ` <span class="warn">${esc(l.not_run)}</span>` : ""),
    });
    return columns;
  }

  function drawBoard() {
    const start = performance.now();
    const groups = new Set(chosenGroups().map((g) => g.id));
    const fits = matcher($("filter").value);
    const human = $("human").checked;
    const trivial = $("trivial").checked;
    const all = multirater.board.lines.filter((line) => groups.has(line.group));
    const lines = all.filter((line) => (human || line.kind !== "human") && (trivial || line.kind !== "trivial") && fits(line.hay));
    fill($("table"), boardColumns(), lines, "board", drawBoard,
      (line) => `class="open ${line.kind}" data-row="${line.row}"`);
    $("count").textContent = `${lines.length} of ${all.length} rows`;
    multirater.last = performance.now() - start;
  }

  function drawAbout() {
    const groups = chosenGroups();
    const notes = groups.flatMap((g) => g.notes.map((n) => (groups.length > 1 ? `${g.title}: ${n}` : n)));
    $("notes").innerHTML = notes.map((n) => `<li>${esc(n)}</li>`).join("");
    const figures = groups.flatMap((g) => g.figures);
    $("figures").innerHTML = figureCards(figures);
    $("figures-head").hidden = !figures.length;
    $("legend").textContent = "Blue and bold: the best of those that may be compared; dotted underline: not significantly "
      + "worse than the best (primary metrics); [low, high]: 95 % interval over patients; † one common mask for all "
      + "readers; ‡ worst values stand in for some cases. Italic: human and oracle rows. Click a row for its cells and cases.";
  }

  /* ---- one row ------------------------------------------------------------------------------ */

  function load(row) {
    if (multirater.rows[row]) return Promise.resolve(multirater.rows[row]);
    return new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = `data/row-${row}.js`;
      script.onload = () => resolve(multirater.rows[row]);
      script.onerror = () => reject(new Error(`data/row-${row}.js is missing from the report's folder`));
      document.head.append(script);
    });
  }

  const TABS = { scores: "All scores", cases: "Cases", samples: "Samples", figures: "Figures", cells: "Cells" };

  async function openRow(index, tab) {
    $("board").hidden = true;
    const place = $("detail");
    place.hidden = false;
    let row;
    try {
      row = await load(index);
    } catch (error) {
      place.innerHTML = `<p class="warning">${esc(error.message)}</p><p><a href="#">back to the table</a></p>`;
      return;
    }
    const empty = { samples: !row.samples.length, figures: !row.figures.length, cases: !row.cases.ids.length,
      scores: !row.all_scores.length };
    const shown = Object.keys(TABS).filter((name) => !empty[name]);
    const current = shown.includes(tab) ? tab : shown[0];
    place.innerHTML = `<p><a href="#" id="back">back to the table</a></p><h2>${esc(row.name)}</h2>`
      + `<p class="small">${esc(row.title)}</p><nav class="tabs" role="tablist">`
      + shown.map((name) => `<button role="tab" data-tab="${name}" aria-selected="${name === current}">${TABS[name]}</button>`).join("")
      + `</nav><div id="tab"></div>`;
    place.querySelector("nav").onclick = (event) => {
      if (event.target.dataset.tab) location.hash = `row/${index}/${event.target.dataset.tab}`;
    };
    const draw = { scores: drawScores, cases: drawCases, samples: drawSamples, figures: drawFigures, cells: drawCells };
    draw[current]($("tab"), row);
    window.scrollTo(0, 0);
  }

  function drawScores(place, row) {
    const names = ["output", "metric", "variant", "S", "cases", "patients", "value", "low", "high", "replaced", "dropped", "note"];
    const columns = names.map((label, i) => ({ key: label, label, text: i < 3 || i === 11, value: (s) => s[i],
      html: (s) => (i > 5 && i < 9 ? fixed(s[i], 4) : esc(s[i])) }));
    const outputs = Object.entries(row.outputs).map(([o, note]) => `<li>${esc(o)}: ${esc(note)}</li>`).join("");
    place.innerHTML = `<label>Filter <input id="within" type="search" size="28"></label> <output id="shown"></output>`
      + `<div class="scroll"><table><thead></thead><tbody></tbody></table></div><ul class="small">${outputs}</ul>`;
    const redraw = () => {
      const fits = matcher($("within").value);
      const rows = row.all_scores.filter((s) => fits(`${s[0]} ${s[1]} ${s[2]}`.toLowerCase()));
      $("shown").textContent = `${rows.length} of ${row.all_scores.length}`;
      fill(place.querySelector("table"), columns, rows, "scores", redraw);
    };
    $("within").oninput = redraw;
    redraw();
  }

  function drawCases(place, row) {
    const outputs = Object.keys(row.cases.outputs);
    place.innerHTML = `<label>Output <select id="output">${outputs.map((o) => `<option>${esc(o)}</option>`).join("")}</select></label> `
      + `<label>Filter <input id="within" type="search" size="28"></label> <output id="shown"></output>`
      + `<div class="scroll"><table><thead></thead><tbody></tbody></table></div>`
      + `<p class="small">Values of single cases, averaged over seeds, after the rule for undefined values.</p>`;
    const withSamples = new Set(row.samples.map((s) => s.case));
    const redraw = () => {
      const values = row.cases.outputs[$("output").value] || {};
      const columns = [
        { key: "case", label: "Case", text: true, value: (i) => row.cases.ids[i],
          html: (i) => esc(row.cases.ids[i]) + (withSamples.has(row.cases.ids[i]) ? " ▣" : "") },
        { key: "patient", label: "Patient", text: true, value: (i) => row.cases.patients[i] },
        ...Object.keys(values).map((m) => ({ key: m, label: m + (ARROWS[row.cases.ways[m]] || ""),
          down: row.cases.ways[m] === "lower", value: (i) => values[m][i], html: (i) => fixed(values[m][i], 3) })),
      ];
      const fits = matcher($("within").value);
      const rows = row.cases.ids.map((_, i) => i)
        .filter((i) => fits(`${row.cases.ids[i]} ${row.cases.patients[i]}`.toLowerCase()));
      $("shown").textContent = `${rows.length} of ${row.cases.ids.length} cases`;
      fill(place.querySelector("table"), columns, rows, "cases", redraw);
    };
    $("within").oninput = redraw;
    $("output").onchange = redraw;
    redraw();
  }

  function drawSamples(place, row) {
    place.innerHTML = `<p class="small">Cases at fixed points of the readers' diversity. Coloured outlines: readers; the slider `
      + `runs over the outputs: mean map, map for each reader, samples in stored order.</p>`
      + `<label><input id="outlines" type="checkbox" checked> readers' outlines</label><br>`;
    row.samples.forEach((one) => place.append(viewer(one)));
    $("outlines").onchange = (event) => {
      place.querySelectorAll(".outlines").forEach((layer) => { layer.hidden = !event.target.checked; });
    };
  }

  function viewer(one) {
    const box = document.createElement("div");
    box.className = "viewer";
    const down = Math.ceil(one.labels.length / one.across);
    box.innerHTML = `<b>${esc(one.case)}</b><div class="small">${one.percentile} % point, diversity of the readers `
      + `${fixed(one.diversity, 2)}</div><div class="stack"><div class="picture"></div><div class="output"></div>`
      + `<div class="outlines"></div></div><input type="range" min="0" max="${one.labels.length - 1}" value="0" `
      + `aria-label="output"><output></output>`;
    box.querySelector(".stack").style.height = `${Math.round((288 * one.height) / one.width)}px`;
    const show = (name, file) => {
      const layer = box.querySelector(name);
      if (file) layer.style.backgroundImage = `url("${file}")`;
      layer.style.backgroundSize = "100% 100%";
      return layer;
    };
    show(".picture", one.image);
    show(".outlines", one.readers);
    const layer = show(".output", one.sprite);
    layer.style.backgroundSize = `${100 * one.across}% ${100 * down}%`;
    const slider = box.querySelector("input");
    const move = () => {
      const k = Number(slider.value);
      const place = (n, of) => (of > 1 ? (100 * n) / (of - 1) : 0);
      layer.style.backgroundPosition = `${place(k % one.across, one.across)}% ${place(Math.floor(k / one.across), down)}%`;
      box.querySelector("output").textContent = one.labels[k];
    };
    slider.oninput = move;
    move();
    return box;
  }

  function drawFigures(place, row) {
    place.innerHTML = `<div class="figures">${figureCards(row.figures)}</div>`;
  }

  function drawCells(place, row) {
    const block = (title, value) => `<details><summary>${title}</summary><pre>${esc(JSON.stringify(value, null, 1))}</pre></details>`;
    place.innerHTML = row.cells.map((cell) => `<h3>${esc(cell.name)}</h3><p>fold ${esc(cell.fold)}, seed ${esc(cell.seed)}: `
      + `<span class="${cell.state === "done" ? "" : "warn"}">${esc(cell.state)}</span> ${esc(cell.why)}</p>`
      + block("configuration", cell.config) + block("training: time, memory, code, machine", cell.training)
      + block("evaluation: time, code, checksum", cell.evaluation) + block("outputs", cell.outputs)).join("");
  }

  /* ---- start -------------------------------------------------------------------------------- */

  function route() {
    const [page, index, tab] = location.hash.replace(/^#/, "").split("/");
    if (page === "row") {
      openRow(Number(index), tab);
    } else {
      $("detail").hidden = true;
      $("board").hidden = false;
    }
  }

  function start() {
    for (const line of multirater.board.lines) {
      line.hay = `${multirater.board.groups[line.group].title} ${line.name} ${line.output} ${line.kind}`.toLowerCase();
    }
    $("filter").oninput = drawBoard;
    $("human").onchange = drawBoard;
    $("trivial").onchange = drawBoard;
    $("intervals").onchange = drawBoard;
    const other = () => { sorting.board = null; drawBoard(); drawAbout(); };
    $("group").onchange = other;
    $("columns").onchange = other;
    $("controls").onsubmit = (event) => event.preventDefault();
    $("table").tBodies[0].onclick = (event) => {
      const row = event.target.closest("tr");
      if (row && row.dataset.row && !event.target.closest("a")) location.hash = `row/${row.dataset.row}`;
    };
    window.addEventListener("hashchange", route);
    drawBoard();
    drawAbout();
    route();
  }

  window.addEventListener("DOMContentLoaded", start);
})();
