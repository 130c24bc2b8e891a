// The live feed, clocks, theme, dialogs, ticked rows and keys. htmx fetches fragments: an element
// says with hx-trigger="live-NAME from:body" which changes it shows. The feed itself is ours,
// because the SSE extension of htmx opens a stream for each tab, and here all tabs share one.
(() => {
  "use strict";
  const root = document.documentElement;
  const still = new URLSearchParams(location.search).has("still") || "past" in document.body.dataset;
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];

  // ---- The words of the page's language, which the server has put there ----
  const words = JSON.parse(document.querySelector("meta[name=words]").content);
  const filled = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
  const count = (number) => String(number).replace(/\B(?=(\d{3})+$)/g, words.thousands);

  // ---- Times in the viewer's zone, and running clocks ----
  const pad = (number, width = 2) => String(number).padStart(width, "0");
  const months = words.months.split(" "), weekdays = words.weekdays.split(" ");
  const written = (iso, form) => {
    const at = new Date(iso), clock = `${pad(at.getHours())}:${pad(at.getMinutes())}`;
    const date = filled(words.date, { day: pad(at.getDate()), month: months[at.getMonth()] });
    const second = `${clock}:${pad(at.getSeconds())}`;
    if (form === "minute") return clock;
    if (form === "exact") return `${second}.${pad(at.getMilliseconds(), 3)}`;
    if (form === "full") return filled(words.full, { weekday: weekdays[at.getDay()], date, time: second });
    if (form === "day" && at.toDateString() !== new Date().toDateString()) return filled(words.dateTime, { date, time: clock });
    return second;
  };
  const duration = (seconds) => {
    const s = Math.max(0, Math.floor(seconds)), h = Math.floor(s / 3600), m = Math.floor(s / 60) % 60;
    return `${h ? `${h}:${pad(m)}` : m}:${pad(s % 60)}`;
  };
  const local = (within) => {
    for (const time of all("time[data-form]", within)) {
      const text = written(time.dateTime, time.dataset.form);
      if (time.textContent !== text) time.textContent = text;
      time.title ||= new Date(time.dateTime).toString();
    }
    for (const text of all("text[data-time]", within)) text.textContent = written(text.dataset.time, "clock");
  };
  // A clock begins with the seconds at the time of sending; the server sends no ticks.
  const begun = new WeakMap();
  const gone = (element, value) => {
    const known = begun.get(element);
    if (!known || known.value !== value) begun.set(element, { value, at: performance.now() });
    return (performance.now() - begun.get(element).at) / 1000;
  };
  let stale = false; // the feed broke off so long ago that the clocks stand still
  const clocks = (within) => {
    if (!stale) for (const clock of all("[data-clock]", within)) {
      const seconds = Number(clock.dataset.clock) + gone(clock, clock.dataset.clock), text = duration(seconds);
      if (clock.textContent !== text) clock.textContent = text;
      const card = clock.closest("[data-late]");
      if (card) card.classList.toggle("late", seconds > Number(card.dataset.late));
    }
    for (const left of all("[data-undo]", within)) {
      left.textContent = String(Math.max(0, Math.ceil(Number(left.dataset.undo) - gone(left, left.dataset.undo))));
    }
  };
  let broken = 0; // when the feed broke off
  const tick = () => {
    if (still) return;
    const away = broken ? performance.now() - broken : 0;
    stale = away > 10000;
    root.classList.toggle("feed-stale", stale);
    // A connection that is back within two seconds needs no mention.
    const band = document.getElementById("redis-away");
    if (band) {
      band.hidden = !(away > 2000 && root.dataset.feed === "down");
      const since = written(new Date(Date.now() - away).toISOString(), "clock"), time = band.querySelector("[data-away]");
      if (!band.hidden && !time.textContent) time.textContent = since;
      if (band.hidden) time.textContent = "";
    }
    if (away > 2000) pulse(filled(root.dataset.feed === "down" ? words.redisAway : words.broken, { time: duration(away / 1000) }), "bad");
    clocks(document);
  };

  // ---- Fragments: an element replaces the one with its id, or joins the list it names ----
  const waiting = new Map(); // fragments for elements that hold the focus
  const put = (element) => {
    const present = document.getElementById(element.id);
    if (element.hasAttribute("data-gone")) { present?.remove(); return; }
    if (present?.contains(document.activeElement)) { waiting.set(element.id, element); return; }
    local(element);
    if (!still) clocks(element); // not those of all cards: there may be thousands
    const into = element.dataset.into;
    if (!into || (present && present.parentElement?.id === into)) { present?.replaceWith(element); return; }
    present?.remove();
    const list = document.getElementById(into);
    if (!list) return;
    element.firstElementChild?.classList.add("fresh");
    if (element.hasAttribute("data-first")) list.prepend(element); else list.append(element);
    while (element.hasAttribute("data-first") && list.children.length > 12) list.lastElementChild.remove();
  };
  const show = (html) => {
    const template = document.createElement("template");
    template.innerHTML = html;
    for (const element of [...template.content.children]) if (element.id) put(element);
  };
  // What a fetch brings may be older than fragments that came meanwhile: they are shown once more.
  const fetching = new Set();
  let meanwhile = [];
  document.addEventListener("htmx:before:request", ({ detail }) => fetching.add(detail.ctx));
  document.addEventListener("htmx:finally:request", ({ detail }) => {
    fetching.delete(detail.ctx);
    if (!fetching.size) meanwhile = [];
  });
  addEventListener("focusout", () => setTimeout(() => {
    for (const [id, element] of waiting) {
      if (document.getElementById(id)?.contains(document.activeElement)) continue;
      waiting.delete(id);
      put(element);
    }
  }));

  // ---- The live feed: one stream for a browser; the tab that holds the lock reads it ----
  const news = "BroadcastChannel" in window ? new BroadcastChannel(`offhook-live ${document.body.dataset.live}`) : null;
  const pulse = (words, state) => {
    for (const mark of all("[data-pulse]")) {
      const text = mark.querySelector("span");
      if (text.textContent !== words) text.textContent = words;
      mark.classList.toggle("t-bad", state === "bad");
    }
  };
  let last = ""; // the id of the last message, from which the next tab that reads goes on
  const hear = ({ event, data, id }) => {
    if (id) last = id;
    if (event === "fragments") {
      show(data);
      if (fetching.size) meanwhile.push(data);
      document.dispatchEvent(new CustomEvent("offhook-fragments", { detail: data }));
    }
    if (event === "changed") {
      for (const name of JSON.parse(data)) document.body.dispatchEvent(new CustomEvent(`live-${name}`));
    }
    if (event === "pop") {
      document.body.dispatchEvent(new CustomEvent("live-me"));
      document.dispatchEvent(new CustomEvent("offhook-pop", { detail: JSON.parse(data) }));
    }
    if (event === "feed") {
      broken = data === "up" ? 0 : broken || performance.now();
      root.dataset.feed = data;
      if (data === "up") pulse(words.live, "");
      tick();
    }
    if (event === "dark") { document.body.replaceChildren(); location.reload(); }
  };
  const tell = (message) => { hear(message); news?.postMessage(message); };
  // The console refuses the stream: a screen whose link was revoked goes dark, a person signs in.
  const refused = async (connect) => {
    const answer = await fetch(location.href, { redirect: "manual" }).catch(() => null);
    if ("wall" in document.body.dataset && answer?.status === 404) tell({ event: "dark", data: "" });
    else if (answer?.type === "opaqueredirect") location.reload();
    else setTimeout(connect, 3000);
  };
  const read = (url) => new Promise(() => {
    const connect = () => {
      const source = new EventSource(last ? `${url}&last-event-id=${encodeURIComponent(last)}` : url);
      source.onopen = () => tell({ event: "feed", data: "up" });
      for (const event of ["fragments", "changed", "feed", "pop", "dark"]) {
        source.addEventListener(event, ({ data, lastEventId }) => tell({ event, data, id: lastEventId }));
      }
      source.onerror = () => {
        tell({ event: "feed", data: "broken" });
        if (source.readyState === EventSource.CLOSED) refused(connect);
      };
      root.dataset.reader = "yes";
      window.offhookStreams = (window.offhookStreams || 0) + 1;
    };
    connect();
  });
  const live = (url) => {
    if (!news || !navigator.locks) { read(url); return; }
    news.onmessage = ({ data }) => {
      if (data.event !== "state?") hear(data);
      else if (root.dataset.reader) {
        news.postMessage({ event: "feed", data: root.dataset.feed || "up" });
        news.postMessage({ event: "changed", data: '["all"]' }); // what that tab did not hear yet
      }
    };
    news.postMessage({ event: "state?" });
    navigator.locks.request(`offhook-live ${url}`, () => read(url));
  };

  // ---- Theme ----
  const isDark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const themes = () => {
    for (const button of all("[data-theme-switch]")) button.setAttribute("aria-pressed", String(isDark()));
  };

  // ---- Ticked dead letters ----
  const ticked = () => {
    const bar = document.querySelector("[data-bulk]");
    if (!bar) return;
    const boxes = all("[data-tick]"), some = boxes.filter((box) => box.checked).length;
    const number = some || Number(bar.dataset.bulk);
    for (const each of all("[data-bulk-number], [data-bulk-count]")) each.textContent = count(number);
    for (const each of all("[data-bulk-all]")) each.hidden = some > 0;
    for (const each of all("[data-bulk-some]")) each.hidden = some === 0;
    const box = document.querySelector("[data-tick-all]");
    box.checked = some > 0 && some === boxes.length;
    box.indeterminate = some > 0 && some < boxes.length;
    for (const each of all("[data-bulk-type]")) {
      each.hidden = number < 100;
      each.querySelector("input").required = number >= 100;
      each.querySelector("input").pattern = String(number);
    }
    for (const each of boxes) each.closest("tr").classList.toggle("sel", each.checked);
  };

  const copied = async (button, text) => {
    await navigator.clipboard.writeText(text);
    const before = button.innerHTML;
    button.textContent = words.copied;
    setTimeout(() => { button.innerHTML = before; }, 1500);
  };

  // Listeners of the document, so that fragments that come later need none of their own.
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button, [data-close]");
    if (!button) return;
    const { dataset } = button;
    if ("themeSwitch" in dataset) {
      root.dataset.theme = isDark() ? "light" : "dark";
      document.cookie = `theme=${root.dataset.theme}; path=/; max-age=31536000; samesite=strict`;
      themes();
      dispatchEvent(new Event("themechange"));
    }
    if (dataset.language) {
      document.cookie = `lang=${dataset.language}; path=/; max-age=31536000; samesite=strict`;
      // Chromium may send a request before it has stored a cookie, unless the cookie is read.
      if (document.cookie) location.reload();
    }
    if (dataset.open) document.getElementById(dataset.open)?.showModal();
    if ("close" in dataset) button.closest("dialog").close();
    if ("copy" in dataset) copied(button, dataset.copy);
    if ("copyLink" in dataset) copied(button, location.href);
    if ("fullScreen" in dataset) root.requestFullscreen();
    if ("bulkNone" in dataset) { for (const box of all("[data-tick]")) box.checked = false; ticked(); }
  });
  document.addEventListener("change", ({ target }) => {
    if (target.matches("[data-tick-all]")) for (const box of all("[data-tick]")) box.checked = target.checked;
    if (target.matches("[data-tick-all], [data-tick]")) ticked();
    if (target.matches("[data-keys-off]")) localStorage.setItem("keys", target.checked ? "off" : "on");
  });
  document.addEventListener("input", ({ target }) => {
    // A page is its URL, also while a question is typed.
    const form = target.closest("form[data-asks]");
    if (form) history.replaceState(null, "", `?${new URLSearchParams(new FormData(form))}#${form.dataset.asks}`);
  });
  document.addEventListener("submit", ({ target }) => {
    // Empty fields of a search would only make its URL longer.
    if (target.method === "get") for (const field of all("input, select", target)) field.disabled = !field.value && !("kept" in field.dataset);
  });
  addEventListener("pageshow", () => { for (const field of all("form[method=get] :disabled, form:not([method]) :disabled")) field.disabled = false; });

  // ---- Keys ----
  const places = { n: "now", c: "calls", m: "missed", h: "handlers", d: "dead-letters" };
  let before = "", before_at = 0;
  const move = (step) => {
    const rows = all("[data-rows] tr"), at = rows.findIndex((row) => row.contains(document.activeElement));
    rows[Math.min(rows.length - 1, Math.max(0, at + step))]?.querySelector("th a, td a")?.focus();
  };
  // A dialog that has just closed keeps the focus until the next frame: its fields do not count.
  const takesKeys = "dialog[open], :is(input, textarea, select):not(dialog:not([open]) *)";
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest(takesKeys)) return;
    if (localStorage.getItem("keys") === "off") return;
    const { key } = event, second = before === "g" && performance.now() - before_at < 1000;
    before = key;
    before_at = performance.now();
    if (second && document.querySelector(`nav a[href="/${places[key]}"]`)) location.href = `/${places[key]}`;
    else if (key === "j") move(1);
    else if (key === "k") move(-1);
    else if (key === "Escape") document.querySelector("[data-leave]")?.click();
    else if (key === "?") document.getElementById("keys-dialog")?.showModal();
    else if (key === "/") {
      const search = document.querySelector("[type=search]");
      if (search) { event.preventDefault(); search.focus(); }
    }
  });

  // ---- "3 new calls": new rows never come by themselves ----
  const known = document.querySelector("[data-rows][data-known=yes]");
  if (known) {
    const fresh = new Set();
    const look = (html) => {
      const template = document.createElement("template");
      template.innerHTML = html;
      for (const card of all("li[data-name]", template.content)) {
        if (Number(card.dataset.began) > Number(known.dataset.newest)) fresh.add(card.id);
      }
      const bar = document.getElementById("new-calls");
      if (fresh.size) { bar.hidden = false; bar.firstElementChild.textContent = fresh.size === 1 ? words.newCall : filled(words.newCalls, { number: count(fresh.size) }); }
    };
    document.addEventListener("offhook-fragments", ({ detail }) => look(detail));
  }

  local(document);
  themes();
  ticked();
  tick();
  for (const box of all("[data-keys-off]")) box.checked = localStorage.getItem("keys") === "off";
  setInterval(tick, 1000);
  // A fragment is in the language of its page, whatever was chosen in another tab since.
  document.addEventListener("htmx:config:request", ({ detail }) => { detail.ctx.request.headers["Offhook-Language"] = root.lang; });
  document.addEventListener("htmx:after:swap", () => { for (const html of meanwhile) show(html); local(document); ticked(); tick(); dispatchEvent(new Event("fragmentschange")); });
  if (document.body.dataset.live) live(document.body.dataset.live);
})();
