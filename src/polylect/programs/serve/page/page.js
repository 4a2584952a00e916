import { offerFiles } from "./files.js";
import { forget, remember, showHistory } from "./history.js";
import { Panel } from "./panel.js";
import { ask } from "./server.js";

const at = (id) => document.getElementById(id);
const RUN = "run:"; // before the path of another run, where it is chosen beside
const ADAPTER = "adapter:";
const panel = new Panel(at("translation"), at("legend"), "");
let directions = [], names = {}, running = null;

function tell(text, wrong = false) {
  at("state").textContent = text;
  at("state").classList.toggle("wrong", wrong);
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
    const other = served.beside && await (await ask("beside/v1/directions")).json();
    ({ directions, languages: names } = served);
    const sources = unique(directions.map((d) => sides(d)[0]));
    fill(at("source"), [["", "the language it is in"], ...sources], at("source").value);
    offerTargets();
    const options = adapters.map((a) => [a.name, `adapter ${a.name}`]);
    fill(at("adapter"), [["", "what serves the direction"], ...options], at("adapter").value);
    at("adapter").disabled = !adapters.length;
    const others = options.map(([value, text]) => [ADAPTER + value, text]);
    if (adapters.length) others.unshift([ADAPTER, "the base alone"]);
    if (other) others.unshift([RUN, `${other.name}, ${other.strategy}`]);
    fill(at("beside"), [["", "nothing else"], ...others], at("beside").value);
    tell(`${served.name}, ${served.strategy}: ${directions.length} directions`);
  } catch (error) {
    tell(error.message, true);
  }
}

function setting() {
  const source = at("source").value, target = at("target").value, adapter = at("adapter").value;
  const way = source ? { direction: `${source}-${target}` } : { target };
  return { ...way, ...(adapter && { adapter }) };
}

// The second panel and its setting, if one is chosen.
function beside() {
  const chosen = at("beside").value;
  at("other").hidden = !chosen;
  document.querySelector(".sides").classList.toggle("three", Boolean(chosen));
  if (!chosen) return null;
  const other = new Panel(
    at("other-translation"), at("other-legend"), chosen.startsWith(RUN) ? "beside/" : "");
  at("other-label").textContent = at("beside").selectedOptions[0].text;
  const { adapter, ...way } = setting();
  const own = chosen.startsWith(RUN) ? {} : { adapter: chosen.slice(ADAPTER.length) };
  return [other, { ...way, ...own }];
}

function isRunning(controller) {
  running = controller;
  at("go").disabled = Boolean(controller);
  at("stop").hidden = at("progress").hidden = !controller;
}

async function translateAll() {
  const lines = at("text").value.split(/\r\n|\r|\n/), target = at("target").value;
  const full = [...lines.entries()].filter(([, line]) => line.trim());
  if (!full.length || running) return;
  const panels = [[panel, setting()], beside()].filter(Boolean), begin = performance.now();
  const colours = new Map();
  isRunning(new AbortController());
  Object.assign(at("progress"), { max: full.length * panels.length, value: 0 });
  tell("translating …");
  try {
    await Promise.all(panels.map(([own, way]) => {
      own.show(lines.map(() => ""), target, colours);
      const body = { ...way, usage: at("colours").checked };
      return own.translate(full, body, running.signal, () => { at("progress").value += 1; });
    }));
    tell(`${full.length} lines in ${((performance.now() - begin) / 1000).toFixed(1)} s`);
    const entry = { text: at("text").value, translation: panel.text(), target };
    if (!remember(entry, choose)) tell("translated; too long for the history of this browser");
  } catch (error) {
    running.abort(); // the other panel, too
    tell(error.name === "AbortError" ? "stopped" : error.message, error.name !== "AbortError");
  } finally {
    isRunning(null);
    at("copy").disabled = at("save").disabled = !panel.text().trim();
  }
}

function choose({ text, translation, target }) {
  at("text").value = text;
  at("target").value = target;
  panel.show(translation.split("\n"), target);
  at("copy").disabled = at("save").disabled = false;
}

function save() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([`${panel.text()}\n`], { type: "text/plain" }));
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
at("beside").addEventListener("change", () => beside());
at("copy").addEventListener("click", async () => {
  await navigator.clipboard.writeText(panel.text());
  tell("copied");
});
at("save").addEventListener("click", save);
at("key").value = sessionStorage.getItem("polylect.key") ?? "";
at("key").addEventListener("change", () => {
  sessionStorage.setItem("polylect.key", at("key").value);
  load();
});
at("forget").addEventListener("click", () => forget(choose));
offerFiles(setting, tell);
showHistory(choose);
load();
