"use strict";
// The table of samples: unpack, filter, sort, and show a page of it. What a model said is only ever set as text.
(() => {
  const PAGE = 50;
  const UNPARSED = ["several", "none", "empty", "truncated"];
  // Controls, and signs that turn the direction of text: shown by name, so that they can do nothing. Joiners stay:
  // emoji and several scripts are written with them.
  const ODD = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;
  const at = (id) => document.getElementById(id);
  const order = new Intl.Collator("en", { numeric: true });
  const body = at("samples").tBodies[0];
  const columns = [...at("samples").tHead.rows[0].cells].map((cell) => cell.dataset.column);
  const state = { task: "", verdict: "", gold: "", answer: "", words: "", sort: null, down: false, page: 0 };
  let data, count, verdicts, found, rankOfText, rankOfId;

  async function unpack() {
    const bytes = Uint8Array.from(atob(at("packed").textContent), (sign) => sign.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    data = await new Response(stream).json();
    count = data.id.length;
    verdicts = data.outcome.map((outcome, row) => verdictOf(data.texts[outcome], row));
    at("packed").remove();
  }

  function verdictOf(outcome, row) {
    return outcome !== "matched" ? outcome : data.answer[row] === data.gold[row] ? "right" : "wrong";
  }

  // -------------------------------------------------------------------------------------------- filter and sort

  function update() {
    found = [];
    const matches = matcher(state.words.trim().toLowerCase());
    const gold = state.gold && data.texts.indexOf(state.gold);
    const answer = state.answer && data.texts.indexOf(state.answer);
    for (let row = 0; row < count; row++) {
      if (state.task !== "" && data.task[row] !== Number(state.task)) continue;
      if (state.verdict === "unparsed" ? !UNPARSED.includes(verdicts[row]) : state.verdict && verdicts[row] !== state.verdict) continue;
      if (state.gold && data.gold[row] !== gold) continue;
      if (state.answer && data.answer[row] !== answer) continue;
      if (matches(row)) found.push(row);
    }
    if (state.sort) {
      const key = keys(state.sort);
      const sign = state.down ? -1 : 1;
      found.sort((a, b) => sign * (key[a] - key[b]) || a - b);
    }
    show();
  }

  function matcher(words) {
    if (!words) return () => true;
    const hits = data.texts.map((text) => text.toLowerCase().includes(words));
    const searched = ["raw", "answer", "gold", "text"].filter((name) => data[name]);
    return (row) => data.id[row].toLowerCase().includes(words) || searched.some((name) => hits[data[name][row]]);
  }

  // A number per row to sort by.
  function keys(column) {
    if (column === "task" || column === "p") return data[column];
    if (column === "verdict") return verdicts.map((verdict) => ["right", "wrong", ...UNPARSED, "skipped"].indexOf(verdict));
    if (column === "id") return (rankOfId ??= ranks(data.id));
    rankOfText ??= ranks(data.texts);
    return data[column].map((text) => rankOfText[text]);
  }

  function ranks(values) {
    const sorted = values.map((_, n) => n).sort((a, b) => order.compare(values[a], values[b]));
    const result = new Array(values.length);
    let rank = 0;
    sorted.forEach((n, place) => {
      if (place && order.compare(values[sorted[place - 1]], values[n])) rank = place;
      result[n] = rank;
    });
    return result;
  }

  // ----------------------------------------------------------------------------------------------------- showing

  function show() {
    const last = Math.max(0, Math.ceil(found.length / PAGE) - 1);
    state.page = Math.min(state.page, last);
    const start = state.page * PAGE;
    const rows = found.slice(start, start + PAGE);
    body.replaceChildren(...rows.map(rowElement));
    const shown = rows.length ? `${number(start + 1)}–${number(start + rows.length)} of ` : "";
    const all = found.length < count ? ` (of ${number(count)})` : "";
    at("samples-count").textContent = `${shown}${number(found.length)} samples${all}`;
    at("page").textContent = `page ${number(state.page + 1)} of ${number(last + 1)}`;
    for (const button of at("pages").querySelectorAll("button")) {
      const back = button.dataset.step === "first" || button.dataset.step === "previous";
      button.disabled = back ? state.page === 0 : state.page === last;
    }
    for (const cell of at("samples").tHead.rows[0].cells) {
      if (!cell.querySelector("button")) continue;
      cell.setAttribute("aria-sort", cell.dataset.column !== state.sort ? "none" : state.down ? "descending" : "ascending");
    }
  }

  function rowElement(row) {
    const element = document.createElement("tr");
    element.append(...columns.map((column) => CELLS[column](row)));
    return element;
  }

  const CELLS = {
    task: (row) => cell(data.tasks[data.task[row]].name),
    id: (row) => cell(data.id[row], "id"),
    frames: (row) => {
      const element = cell("");
      if (data.frames[row]) {
        const image = new Image();
        image.src = data.frames[row];
        image.alt = `frames of ${data.id[row]}`;
        element.append(image);
      }
      return element;
    },
    text: (row) => said(data.texts[data.text[row]], 0),
    raw: (row) => said(data.texts[data.raw[row]], data.more[row]),
    answer: (row) => cell(UNPARSED.includes(verdicts[row]) || verdicts[row] === "skipped" ? "–" : data.texts[data.answer[row]]),
    gold: (row) => cell(data.texts[data.gold[row]]),
    verdict: (row) => {
      const verdict = verdicts[row];
      if (verdict === "right") return cell("✓ right", "right");
      return verdict === "wrong" ? cell("✗ wrong", "wrong") : cell(`○ ${verdict}`, "neither");
    },
    p: (row) => cell(data.p[row] < 0 ? "–" : (data.p[row] / 1000).toFixed(3), "n"),
  };

  function cell(text, name) {
    const element = document.createElement("td");
    element.textContent = text;
    if (name) element.className = name;
    return element;
  }

  function said(text, more) {
    const element = cell("", "said");
    element.dir = "auto";
    let end = 0;
    for (const match of text.matchAll(ODD)) {
      element.append(text.slice(end, match.index), span("odd", `⟨U+${match[0].charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`));
      end = match.index + 1;
    }
    element.append(text.slice(end));
    if (more) element.append("… ", span("more", `(${number(more)} more)`));
    return element;
  }

  function span(name, text) {
    const element = document.createElement("span");
    element.className = name;
    element.textContent = text;
    return element;
  }

  const number = (value) => value.toLocaleString("en");

  // ---------------------------------------------------------------------------------------------------- controls

  function offer(id, values) {
    const chosen = at(id).value;
    at(id).replaceChildren(new Option("all", ""), ...values.map(([value, text]) => new Option(text, value)));
    at(id).value = values.some(([value]) => value === chosen) ? chosen : "";
  }

  function offerLabels() {
    const tasks = state.task === "" ? data.tasks : [data.tasks[Number(state.task)]];
    const labels = [...new Set(tasks.flatMap((task) => task.labels))].map((label) => [label, label]);
    offer("by-gold", labels);
    offer("by-answer", labels);
  }

  function offerAll() {
    offer("by-task", data.tasks.map((task, n) => [String(n), task.name]));
    const there = new Set(verdicts);
    const kinds = ["right", "wrong", ...UNPARSED, "skipped"].filter((kind) => there.has(kind)).map((kind) => [kind, kind]);
    if (UNPARSED.some((kind) => there.has(kind))) kinds.push(["unparsed", "any unparsed"]);
    offer("by-verdict", kinds);
    offerLabels();
  }

  function read() {
    state.task = at("by-task").value;
    offerLabels();
    for (const name of ["verdict", "gold", "answer", "words"]) state[name] = at(`by-${name}`).value;
    state.page = 0;
    update();
  }

  function listen() {
    let waiting;
    at("filter").addEventListener("change", read);
    at("by-words").addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(read, 150);
    });
    at("filter").addEventListener("submit", (event) => event.preventDefault());
    at("filter").addEventListener("reset", () => setTimeout(read));
    at("samples").tHead.addEventListener("click", (event) => {
      const column = event.target.closest("button")?.parentElement.dataset.column;
      if (!column) return;
      state.down = state.sort === column && !state.down;
      state.sort = column;
      state.page = 0;
      update();
    });
    at("pages").addEventListener("click", (event) => {
      const last = Math.ceil(found.length / PAGE) - 1;
      const step = { first: 0, previous: state.page - 1, next: state.page + 1, last }[event.target.dataset.step];
      if (step === undefined) return;
      state.page = step;
      show();
    });
    for (const link of document.querySelectorAll("a[data-task]")) {
      link.addEventListener("click", () => {
        at("filter").reset();
        at("by-task").value = state.task = link.dataset.task;
        offerLabels();
        at("by-gold").value = link.dataset.gold ?? "";
        at("by-answer").value = link.dataset.answer ?? "";
        setTimeout(read);
      });
    }
  }

  // ------------------------------------------------------------------------------------------ the rest of the page

  // Wide tables and pictures can be scrolled by keyboard, those that fit are no stop on the way.
  function reach() {
    const watch = new ResizeObserver((entries) => {
      for (const { target } of entries) {
        if (target.scrollWidth > target.clientWidth + 1) target.tabIndex = 0;
        else target.removeAttribute("tabindex");
      }
    });
    for (const element of document.querySelectorAll(".scroll")) watch.observe(element);
  }

  function openTarget() {
    const target = location.hash && at(decodeURIComponent(location.hash.slice(1)));
    if (target instanceof HTMLDetailsElement) target.open = true;
  }

  addEventListener("hashchange", openTarget);
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((fold) => (fold.open = true)));
  openTarget();
  reach();
  setTimeout(async () => {
    try {
      await unpack();
    } catch (error) {
      at("samples-heading").after(span("small", `The samples cannot be unpacked here (${error}); they stand in the folder samples of the run.`));
      return;
    }
    offerAll();
    listen();
    update();
    for (const id of ["filter", "samples-scroll", "pages"]) at(id).hidden = false;
    document.documentElement.dataset.ready = "";
  });
})();
