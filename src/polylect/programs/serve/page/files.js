// Files: sent to the server whole, and given back translated.
import { events } from "./server.js";

const at = (id) => document.getElementById(id);
let running = null;

// Text of a file, in UTF-8 or, as its first bytes say, UTF-16.
async function read(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const wide = { "255 254": "utf-16le", "254 255": "utf-16be" }[bytes.slice(0, 2).join(" ")];
  try {
    return new TextDecoder(wide ?? "utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new Error(`${file.name} is no text in UTF-8`);
  }
}

function offer({ name, content }) {
  URL.revokeObjectURL(at("download").href);
  at("download").href = URL.createObjectURL(new Blob([content], { type: "text/plain" }));
  at("download").download = name;
  at("download").textContent = `Save ${name}`;
  at("download").hidden = false;
  at("download").focus();
}

function isRunning(controller) {
  running = controller;
  at("file-go").disabled = Boolean(controller);
  at("file-stop").hidden = at("file-progress").hidden = !controller;
}

async function translate(setting, tell) {
  const [file] = at("file").files;
  if (!file || running) return;
  const begin = performance.now();
  isRunning(new AbortController());
  at("download").hidden = true;
  at("file-progress").removeAttribute("value");
  tell(`translating ${file.name} …`);
  try {
    const content = await read(file);
    const body = { name: file.name, content, column: at("column").value - 1, ...setting() };
    for await (const event of events("v1/documents", body, running.signal)) {
      if (event.document) offer(event.document);
      else Object.assign(at("file-progress"), { max: Math.max(event.of, 1), value: event.done });
    }
    tell(`${file.name} in ${((performance.now() - begin) / 1000).toFixed(1)} s`);
  } catch (error) {
    tell(error.name === "AbortError" ? "stopped" : error.message, error.name !== "AbortError");
  } finally {
    isRunning(null);
  }
}

// setting: returns direction or target, and adapter; tell: shows a state.
export function offerFiles(setting, tell) {
  at("file").addEventListener("change", () => {
    const name = at("file").files[0]?.name ?? "";
    at("file-go").disabled = !name;
    at("column-label").hidden = !name.toLowerCase().endsWith(".tsv");
    at("download").hidden = true;
  });
  at("file-go").addEventListener("click", () => translate(setting, tell));
  at("file-stop").addEventListener("click", () => running?.abort());
}
