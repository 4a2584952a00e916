// A translation on the page: lines that grow, and colours for who wrote their tokens.
import { events } from "./server.js";

// Lines of a request: fewer than servers take at once, so that the first translations come soon.
const LINES_AT_ONCE = 64;
const COLOURS = 8; // that page.css has; further names have the last one

const span = (className, text) =>
  Object.assign(document.createElement("span"), { className, textContent: text });

// Shares and names in words, the largest first.
function said(shares) {
  const order = shares.filter(([share]) => share >= 0.005).sort((a, b) => b[0] - a[0]).slice(0, 4);
  return order.map(([share, name]) => `${name} ${Math.round(100 * share)} %`).join(", ");
}

export class Panel {
  // path: of the server's API for this panel.
  constructor(translation, legend, path) {
    Object.assign(this, { translation, legend, path });
  }

  // colours: the number of each name, which panels side by side share.
  show(lines, target, colours = new Map()) {
    this.lines = lines.map((line) => {
      const p = document.createElement("p");
      Object.assign(p, { dir: "auto", lang: target.replace("_", "-"), textContent: line });
      return p;
    });
    this.translation.replaceChildren(...this.lines);
    this.legend.replaceChildren();
    this.legend.hidden = true;
    this.colours = colours;
    this.shown = new Set();
  }

  text() {
    return (this.lines ?? []).map((p) => p.textContent).join("\n");
  }

  // full: [number of the line, its text], of those that are not empty.
  async translate(full, setting, signal, progress) {
    this.translation.setAttribute("aria-busy", "true");
    try {
      for (let i = 0; i < full.length; i += LINES_AT_ONCE) {
        await this.translateSome(full.slice(i, i + LINES_AT_ONCE), setting, signal, progress);
      }
    } finally {
      this.translation.setAttribute("aria-busy", "false");
    }
  }

  async translateSome(part, setting, signal, progress) {
    const body = { texts: part.map(([, line]) => line), ...setting, stream: true };
    for await (const event of events(`${this.path}v1/translate`, body, signal)) {
      const p = this.lines[part[event.index][0]];
      if (event.piece) p.append(event.piece);
      if (!event.translation) continue;
      this.finish(p, event.translation);
      progress();
    }
  }

  finish(p, { text, direction, adapter, capped, usage }) {
    p.textContent = text;
    p.title = `${direction}${adapter ? `, adapter ${adapter}` : ""}${capped ? ", cut off" : ""}`;
    p.classList.toggle("wrong", capped);
    if (usage) this.colour(p, usage);
  }

  colour(p, { names, tokens, shares }) {
    const best = shares.map((own) => own.indexOf(Math.max(...own)));
    p.replaceChildren(...tokens.map((token, i) => {
      const made = span(`token colour-${this.number(names[best[i]])}`, token);
      made.title = said(names.map((name, n) => [shares[i][n], name]));
      return made;
    }));
    const total = names.map((name, n) => [shares.reduce((sum, own) => sum + own[n], 0), name]);
    p.setAttribute("aria-description", said(total.map(([sum, name]) => [sum / tokens.length, name])));
  }

  // The number of a name's colour, which is in the legend from then on.
  number(name) {
    const { colours, legend, shown } = this;
    if (!colours.has(name)) colours.set(name, Math.min(colours.size, COLOURS - 1) + 1);
    if (!shown.has(name)) {
      shown.add(name);
      const item = document.createElement("li");
      item.append(span(`token colour-${colours.get(name)}`, name));
      legend.append(item);
      legend.hidden = false;
    }
    return colours.get(name);
  }
}
