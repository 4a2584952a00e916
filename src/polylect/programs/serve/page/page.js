"use strict";
// Lines of a request: fewer than servers take at once, so that the first translations come soon.
const LINES_AT_ONCE = 64;
const HISTORY = "polylect.history";
const at = (id) => document.getElementById(id);
let directions = [], names = {}, running = null;

function tell(text, wrong = false) {
  at("state").textContent = text;
  at("state").classList.toggle("wrong", wrong);
}

function headers() {
  const key = at("key").value.trim();
  return { "Content-Type": "application/json", ...(key && { Authorization: `Bearer ${key}` }) };
}

async function ask(path, body, signal) {
  const options = body ? { method: "POST", body: JSON.stringify(body) } : {};
  const answer = await fetch(path, { headers: headers(), signal, ...options });
  if (answer.ok) return answer;
  if (answer.status === 401) at("key-details").open = true;
  const said = await answer.json().catch(() => null);
  throw new Error(said?.error?.message ?? `the server answers ${answer.status}`);
}

function fill(select, options, chosen) {
  select.replaceChildren(...options.map(([value, text]) => new Option(text, value)));
  if (options.some(([value]) => value === chosen)) select.value = chosen;
}

const sides = (direction) => direction.split("-");
const named = (code) => [code, `${names[code] ?? code} (${code})`];
const unique = (codes) => [...new Set(codes)].sort().map(named);

function offerTargets() {
  const source = at("source").value;
  const open = directions.filter((d) => !source || sides(d)[0] === source);
  fill(at("target"), unique(open.map((d) => sides(d)[1])), at("target").value);
}

async function load() {
  try {
    const served = await (await ask("v1/directions")).json();
    const { adapters } = await (await ask("v1/adapters")).json();
    ({ directions, languages: names } = served);
    const sources = unique(directions.map((d) => sides(d)[0]));
    fill(at("source"), [["", "the language it is in"], ...sources], at("source").value);
    offerTargets();
    const options = adapters.map((a) => [a.name, a.name]);
    fill(at("adapter"), [["", "of the direction"], ...options], at("adapter").value);
    at("adapter").disabled = !adapters.length;
    tell(`${directions.length} directions`);
  } catch (error) {
    tell(error.message, true);
  }
}

async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Error("the server went away");
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const data = part.replace(/^data: /, "");
      if (data === "[DONE]") return;
      yield JSON.parse(data);
    }
  }
}

function setting() {
  const source = at("source").value, target = at("target").value, adapter = at("adapter").value;
  const way = source ? { direction: `${source}-${target}` } : { target };
  return { ...way, ...(adapter && { adapter }) };
}

function paragraphs(lines, target) {
  const made = lines.map(() => document.createElement("p"));
  for (const p of made) Object.assign(p, { dir: "auto", lang: target.replace("_", "-") });
  at("translation").replaceChildren(...made);
  return made;
}

async function translateSome(part, shown, way, signal) {
  const texts = part.map(([, line]) => line);
  for await (const event of events(await ask("v1/translate", { texts, ...way, stream: true }, signal))) {
    if (event.error) throw new Error(event.error.message);
    const p = shown[part[event.index][0]];
    if (event.piece) p.append(event.piece);
    if (!event.translation) continue;
    p.textContent = event.translation.text;
    const { direction, adapter, capped } = event.translation;
    p.title = `${direction}${adapter ? `, adapter ${adapter}` : ""}${capped ? ", cut off" : ""}`;
    p.classList.toggle("wrong", capped);
    at("progress").value += 1;
  }
}

function isRunning(controller) {
  running = controller;
  at("go").disabled = Boolean(controller);
  at("stop").hidden = at("progress").hidden = !controller;
  at("translation").setAttribute("aria-busy", String(Boolean(controller)));
}

async function translateAll() {
  const lines = at("text").value.split(/\r\n|\r|\n/), target = at("target").value;
  const full = [...lines.entries()].filter(([, line]) => line.trim());
  if (!full.length || running) return;
  const shown = paragraphs(lines, target), way = setting(), begin = performance.now();
  isRunning(new AbortController());
  Object.assign(at("progress"), { max: full.length, value: 0 });
  tell("translating …");
  try {
    for (let i = 0; i < full.length; i += LINES_AT_ONCE) {
      await translateSome(full.slice(i, i + LINES_AT_ONCE), shown, way, running.signal);
    }
    tell(`${full.length} lines in ${((performance.now() - begin) / 1000).toFixed(1)} s`);
    remember({ text: at("text").value, translation: whole(), target });
  } catch (error) {
    tell(error.name === "AbortError" ? "stopped" : error.message, error.name !== "AbortError");
  } finally {
    isRunning(null);
    at("copy").disabled = at("save").disabled = !whole().trim();
  }
}

const whole = () => [...at("translation").children].map((p) => p.textContent).join("\n");

function stored() {
  try {
    return JSON.parse(localStorage.getItem(HISTORY)) ?? [];
  } catch {
    return [];
  }
}

function remember(entry) {
  const kept = [entry, ...stored().filter((e) => e.text !== entry.text || e.target !== entry.target)];
  try {
    localStorage.setItem(HISTORY, JSON.stringify(kept.slice(0, 30)));
  } catch {
    tell("translated; too long for the history of this browser");
  }
  showHistory();
}

function showHistory() {
  const items = stored().map((entry) => {
    const button = document.createElement("button");
    const into = Object.assign(document.createElement("span"), { className: "direction" });
    into.textContent = `${entry.target}  `;
    button.type = "button";
    button.dir = "auto";
    const text = entry.text.replace(/\s+/g, " ");
    button.append(into, text.length > 120 ? `${text.slice(0, 120)}…` : text);
    button.addEventListener("click", () => {
      at("text").value = entry.text;
      at("target").value = entry.target;
      paragraphs(entry.translation.split("\n"), entry.target).forEach((p, i) => {
        p.textContent = entry.translation.split("\n")[i];
      });
    });
    const item = document.createElement("li");
    item.append(button);
    return item;
  });
  at("history").replaceChildren(...items);
  at("history-section").hidden = !items.length;
}

function save() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([`${whole()}\n`], { type: "text/plain" }));
  link.download = `translation.${at("target").value}.txt`;
  link.click();
  URL.revokeObjectURL(link.href);
}

at("form").addEventListener("submit", (event) => { event.preventDefault(); translateAll(); });
at("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) translateAll();
});
at("stop").addEventListener("click", () => running?.abort());
at("source").addEventListener("change", offerTargets);
at("copy").addEventListener("click", async () => {
  await navigator.clipboard.writeText(whole());
  tell("copied");
});
at("save").addEventListener("click", save);
at("file").addEventListener("change", async () => {
  const [file] = at("file").files;
  if (file) at("text").value = await file.text();
});
at("key").value = sessionStorage.getItem("polylect.key") ?? "";
at("key").addEventListener("change", () => {
  sessionStorage.setItem("polylect.key", at("key").value);
  load();
});
at("forget").addEventListener("click", () => { localStorage.removeItem(HISTORY); showHistory(); });
showHistory();
load();
