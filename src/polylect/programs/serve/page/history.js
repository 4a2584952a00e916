// What was translated, in this browser alone.
const HISTORY = "polylect.history";
const MOST = 30;
const at = (id) => document.getElementById(id);

function stored() {
  try {
    return JSON.parse(localStorage.getItem(HISTORY)) ?? [];
  } catch {
    return [];
  }
}

function button(entry, choose) {
  const made = document.createElement("button");
  const into = Object.assign(document.createElement("span"), { className: "direction" });
  into.textContent = `${entry.target}  `;
  Object.assign(made, { type: "button", dir: "auto" });
  const text = entry.text.replace(/\s+/g, " ");
  made.append(into, text.length > 120 ? `${text.slice(0, 120)}…` : text);
  made.addEventListener("click", () => choose(entry));
  return made;
}

export function showHistory(choose) {
  const items = stored().map((entry) => {
    const item = document.createElement("li");
    item.append(button(entry, choose));
    return item;
  });
  at("history").replaceChildren(...items);
  at("history-section").hidden = !items.length;
}

// Returns whether there was room for it.
export function remember(entry, choose) {
  const kept = [entry, ...stored().filter((e) => e.text !== entry.text || e.target !== entry.target)];
  try {
    localStorage.setItem(HISTORY, JSON.stringify(kept.slice(0, MOST)));
  } catch {
    return false;
  }
  showHistory(choose);
  return true;
}

export function forget(choose) {
  localStorage.removeItem(HISTORY);
  showHistory(choose);
}
