"use strict";
// Draws a run's state and asks for it again every two seconds. Text goes in as text, never as HTML.

const EVERY_MS = 2000, HIDDEN_MS = 15000, NEWEST_ROUNDS = 20, MAX_DOTS = 30;
const LOOKS = {
  "finished": "good", "running": "busy", "waiting": "wait", "stopped": "wait", "failed": "bad",
  "finished with missing hospitals": "bad", "answered": "good", "took part": "good",
  "working": "busy", "joined": "busy", "not joined": "wait", "late": "bad", "left out": "bad",
  "missing": "bad", "no longer a member": "bad",
};
const MARKS = { good: "\u2713", busy: "\u25cf", wait: "\u25cb", bad: "!" };
const NAMES = { loss: "Loss", dice: "Dice", c_index: "C-index" };
const at = (id) => document.getElementById(id);
let run = null, tag = null, timer = null, pending = null;

function make(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children.map(String));
  return node;
}
function draw(name, attributes, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}
function show(id, visible) { at(id).hidden = !visible; }

function fill(id, heads, rows) {
  // A head is [title, class]; a row's first cell names it; a cell is text or a node.
  const head = make("tr");
  for (const [title, look] of heads) head.append(make("th", { scope: "col", class: look || "" }, title));
  const body = rows.map((row) => {
    const line = make("tr");
    row.forEach((cell, index) => {
      const place = index ? make("td", { class: heads[index][1] || "" }) : make("th", { scope: "row" });
      place.append(cell ?? "");
      line.append(place);
    });
    return line;
  });
  const top = make("thead"), rest = make("tbody");
  top.append(head);
  rest.append(...body);
  at(id).replaceChildren(top, rest);
}
function number(value, digits) {
  return value === null || value === undefined ? "" : value.toLocaleString("en", {
    minimumFractionDigits: digits, maximumFractionDigits: digits });
}
function phase(text) {
  const look = LOOKS[text] || "busy";
  return make("span", { class: look }, `${MARKS[look]} ${text}`);
}

// Charts -------------------------------------------------------------------------------------------
function ticks(low, high, about) {
  const raw = (high - low) / about || 1, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((k) => k * power).find((k) => k >= raw);
  const found = [];
  for (let k = Math.ceil(low / step); k * step <= high + step * 1e-9; k++) found.push(k * step);
  return found.map((value) => Number(value.toPrecision(10)));
}
function look(index) { return `k${index % 6} d${Math.floor(index / 6) % 4}`; }

function chart(title, series, floor = Infinity) {
  // series: [{name, look, values}]; values[i] belongs to round i + 1; the axis begins at floor or below.
  const W = 460, H = 230, L = 52, R = 12, T = 10, B = 40;
  // Told is never empty: a curve exists because a hospital sent a value.
  const told = series.flatMap((each) => each.values).filter((value) => value !== null);
  const count = Math.max(...series.map((each) => each.values.length), 2);
  let low = Math.min(floor, ...told), high = Math.max(...told);
  if (low === high) { low -= Math.abs(low) / 10 || 1; high += Math.abs(high) / 10 || 1; }
  const x = (index) => L + (W - L - R) * index / (count - 1);
  const y = (value) => H - B - (H - B - T) * (value - low) / (high - low);
  const names = series.map((each) => each.name).join(", ");
  const image = draw("svg", { viewBox: `0 0 ${W} ${H}`, role: "img",
    "aria-label": `${title}, rounds 1 to ${count}, of ${names}; the numbers stand in the table below` });
  for (const value of ticks(low, high, 4)) {
    image.append(draw("line", { class: "grid", x1: L, x2: W - R, y1: y(value), y2: y(value) }));
    image.append(draw("text", { x: L - 8, y: y(value) + 4, "text-anchor": "end" }, String(value)));
  }
  for (const value of ticks(1, count, 8).filter(Number.isInteger)) {
    image.append(draw("text", { x: x(value - 1), y: H - B + 18, "text-anchor": "middle" }, String(value)));
  }
  image.append(draw("line", { class: "axis", x1: L, x2: W - R, y1: H - B, y2: H - B }));
  image.append(draw("text", { x: (L + W - R) / 2, y: H - 4, "text-anchor": "middle" }, "Round"));
  for (const each of series) curve(image, each, x, y);
  const figure = make("figure"), legend = make("ul", { class: "legend" });
  for (const each of series) {
    const sample = draw("svg", { viewBox: "0 0 30 12", "aria-hidden": "true" }), item = make("li");
    sample.append(draw("line", { class: `curve ${each.look}`, x1: 0, x2: 30, y1: 6, y2: 6 }));
    item.append(sample, each.name);
    legend.append(item);
  }
  figure.append(make("h3", {}, title), image, legend);
  return figure;
}
function curve(image, each, x, y) {
  // A round without a value breaks the line.
  let path = "", open = false;
  each.values.forEach((value, index) => {
    if (value !== null) path += `${open ? "L" : "M"}${x(index).toFixed(1)} ${y(value).toFixed(1)}`;
    open = value !== null;
  });
  image.append(draw("path", { class: `curve ${each.look}`, d: path }));
  if (each.values.length > MAX_DOTS) return;
  each.values.forEach((value, index) => {
    if (value === null) return;
    const dot = draw("circle", { class: `dot ${each.look}`, cx: x(index), cy: y(value), r: 3 });
    dot.append(draw("title", {}, `${each.name}, round ${index + 1}: ${number(value, 3)}`));
    image.append(dot);
  });
}

// Sections -----------------------------------------------------------------------------------------
function head(shown) {
  const state = shown.state, ended = !["running", "waiting"].includes(state.status);
  document.title = `${state.name}: ${state.status}`;
  at("name").textContent = state.name;
  at("status").textContent = `${MARKS[LOOKS[state.status]]} ${state.status}`;
  at("status").className = `chip ${LOOKS[state.status]}`;
  const bad = LOOKS[state.status] === "bad";
  // Once: what went wrong is an alarm, what goes on is a status.
  const sentence = `${state.code} ${state.sentence}`.trim();
  if (at("sentence").textContent !== (bad ? "" : sentence)) at("sentence").textContent = bad ? "" : sentence;
  if (at("alarm").textContent !== sentence) at("alarm").textContent = sentence;
  show("alarm", bad);
  show("progress", !ended && state.total > 0);
  at("progress").max = Math.max(state.total, 1);
  at("progress").value = state.done;
  at("stages").replaceChildren(...state.stages.map((stage) => {
    const mark = { done: "\u2713", now: "\u25cf", ahead: "\u25cb" }[stage.state];
    const item = make("li", { class: stage.state }, `${mark} ${stage.name}`);
    if (stage.state === "now") item.setAttribute("aria-current", "step");
    return item;
  }));
  show("stop", shown.can.includes("stop"));
  show("resume", shown.can.includes("resume"));
  show("report", state.has_report && state.status.startsWith("finished"));
  at("report").href = `/report/${encodeURIComponent(shown.run)}`;
  at("updated").textContent = state.updated ? `Last news ${new Date(state.updated).toLocaleString()}` : "";
}
function runs(shown) {
  show("choice", shown.runs.length > 1);
  at("runs").replaceChildren(...shown.runs.map((each) => {
    const option = make("option", { value: each.name }, each.state ? `${each.name} (${each.state})` : each.name);
    option.selected = each.name === shown.run;
    return option;
  }));
}
function hospitals(state) {
  const heads = [["Hospital"], ["Role"], ["State"], ["Rounds missed in a row", "number"], ["Last round counted", "number"], ["Why", "why"]];
  fill("hospital-table", heads, state.hospitals.map((each) => [
    each.name, each.role, phase(each.phase), each.missed_in_a_row || "", each.last_round ?? "",
    `${each.code} ${each.sentence}`.trim()]));
}
function training(state) {
  const groups = new Map(), order = new Map();
  // A hospital has the same line in every chart.
  for (const each of state.hospitals) order.set(each.name, order.size);
  for (const each of state.curves) {
    if (!order.has(each.hospital)) order.set(each.hospital, order.size);
    const title = `${NAMES[each.metric] || each.metric.replaceAll("_", " ")}, stage ${each.stage}`;
    if (!groups.has(title)) groups.set(title, []);
    groups.get(title).push({ name: each.hospital, look: look(order.get(each.hospital)), values: each.values });
  }
  show("training-section", groups.size > 0);
  at("curves").replaceChildren(...[...groups].map(([title, series]) => chart(title, series)));
  const longest = Math.max(0, ...state.curves.map((each) => each.values.length));
  const newest = Array.from({ length: Math.min(longest, NEWEST_ROUNDS) }, (_, k) => longest - k);
  fill("curve-table", [["Curve"], ...newest.map((k) => [`Round ${k}`, "number"])], state.curves.map((each) => [
    `${each.hospital}, ${each.metric}, ${each.stage}`, ...newest.map((k) => number(each.values[k - 1], 3))]));
}
function models(state) {
  const names = [...new Set(state.figures.map((each) => each.name))];
  const sites = [...new Set(state.figures.map((each) => each.hospital))];
  show("models-section", names.length > 0);
  fill("figure-table", [["Hospital"], ...names.map((name) => [name, "number"])], sites.map((site) => [
    site, ...names.map((name) => number(state.figures.find(
      (each) => each.name === name && each.hospital === site)?.value, 3))]));
}
function rounds(state) {
  show("rounds-section", state.rounds.length > 0);
  const measured = state.rounds.some((each) => each.mb_down !== null || each.mb_up !== null);
  const charts = [];
  for (const stage of new Set(state.rounds.map((each) => each.stage))) {
    const own = state.rounds.filter((each) => each.stage === stage);
    charts.push(chart(`Seconds a round, stage ${stage}`, [{ name: "all hospitals", look: look(0), values: own.map((r) => r.seconds) }], 0));
    if (measured) charts.push(chart(`MB a round, stage ${stage}`, [
      { name: "to hospitals", look: look(0), values: own.map((r) => r.mb_down) },
      { name: "from hospitals", look: look(1), values: own.map((r) => r.mb_up) }].filter((s) => s.values.some((v) => v !== null)), 0));
  }
  at("effort").replaceChildren(...charts);
  const heads = [["Stage"], ["Round", "number"], ["Hospitals counted", "number"], ["Left out"], ["Seconds", "number"], ["Change of the model", "number"]];
  if (measured) heads.splice(5, 0, ["MB to hospitals", "number"], ["MB from hospitals", "number"]);
  fill("round-table", heads, state.rounds.slice(-NEWEST_ROUNDS).reverse().map((each) => {
    const row = [each.stage, each.number, each.counted, each.left_out.join(", "), number(each.seconds, 1), number(each.update_norm, 3)];
    if (measured) row.splice(5, 0, number(each.mb_down, 2), number(each.mb_up, 2));
    return row;
  }));
}
function privacy(state) {
  const shown = state.hospitals.filter((each) => each.epsilon !== null), parts = [];
  if (state.epsilon !== null) parts.push(make("p", {}, `Training so far costs every hospital \u03b5 = ${number(state.epsilon, 3)} at \u03b4 = ${state.delta}.`));
  if (shown.length) {
    const table = make("table", { id: "budget" });
    parts.push(table);
    at("privacy-content").replaceChildren(...parts);
    fill("budget", [["Hospital"], ["\u03b5 spent", "number"], ["\u03b4", "number"]], shown.map((each) => [
      each.name, number(each.epsilon, 3), each.delta ?? ""]));
    return;
  }
  if (!parts.length) parts.push(make("p", { class: "note" }, "No hospital has shown what it spends. Each keeps its own ledger, and shows \u03b5 only if it chooses to."));
  at("privacy-content").replaceChildren(...parts);
}
function events(state) {
  at("events").replaceChildren(...[...state.log].reverse().map((line) => {
    const item = make("li"), when = new Date(line.time);
    item.append(make("time", { datetime: line.time }, isNaN(when) ? line.time : when.toLocaleTimeString()), line.text);
    return item;
  }));
}

// Asking -------------------------------------------------------------------------------------------
async function refresh() {
  clearTimeout(timer);
  try {
    const headers = tag ? { "If-None-Match": tag } : {};
    const query = run === null ? "" : `?run=${encodeURIComponent(run)}`;
    const answer = await fetch(`/state${query}`, { headers, cache: "no-store" });
    if (answer.status !== 304) {
      if (!answer.ok) throw new Error(await answer.text());
      tag = answer.headers.get("ETag");
      const shown = await answer.json();
      run = shown.run;
      head(shown);
      runs(shown);
      for (const section of [hospitals, training, models, rounds, privacy, events]) section(shown.state);
    }
    show("lost", false);
  } catch (error) {
    const why = error instanceof TypeError ? "The dashboard does not answer; is concors-server dashboard still running?" : error.message;
    if (at("lost").textContent !== why) at("lost").textContent = why;
    show("lost", true);
  }
  timer = setTimeout(refresh, document.hidden ? HIDDEN_MS : EVERY_MS);
}
function ask(action, question) {
  pending = action;
  at("question").textContent = question;
  at("yes").textContent = at(action).textContent;
  at("confirm").showModal();
}
async function press() {
  at("confirm").close();
  const headers = { "X-Concors-CSRF": document.querySelector("meta[name=csrf]").content };
  const answer = await fetch(`/runs/${encodeURIComponent(run)}/${pending}`, { method: "POST", headers });
  if (!answer.ok) {
    at("question").textContent = await answer.text();
    at("yes").hidden = true;
    at("confirm").showModal();
    return;
  }
  tag = null;
  refresh();
}
at("stop").addEventListener("click", () => ask("stop", "Stop this study? Finished rounds are kept and it can be resumed; the round under way is lost."));
at("resume").addEventListener("click", () => ask("resume", "Resume this study after its last finished round?"));
at("yes").addEventListener("click", press);
at("no").addEventListener("click", () => at("confirm").close());
at("confirm").addEventListener("close", () => { at("yes").hidden = false; });
at("runs").addEventListener("change", (event) => { run = event.target.value; tag = null; refresh(); });
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
refresh();
