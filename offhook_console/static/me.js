// The agent's screen: opens the CRM in the tab named "crm", and answers to its keys. console.js has
// the live feed and hands screen pops to the page.
(() => {
  "use strict";
  const remembered = (name, otherwise) => localStorage.getItem(name) ?? otherwise;
  const when = () => remembered("pop-when", "answer");

  // ---- Once for each call, however often it is sent, and in one of the tabs that show this page ----
  let chosen = !navigator.locks;
  navigator.locks?.request("offhook-me", () => new Promise(() => { chosen = true; }));
  const once = (call) => {
    const opened = JSON.parse(remembered("pop-opened", "[]"));
    if (opened.includes(call)) return false;
    localStorage.setItem("pop-opened", JSON.stringify([...opened, call].slice(-50)));
    return true;
  };
  const open = (url) => {
    const blocked = !window.open(url, "crm");
    for (const note of document.querySelectorAll("[data-blocked]")) note.hidden = !blocked;
  };
  document.addEventListener("offhook-pop", ({ detail: { call, state, url } }) => {
    const wanted = { ring: ["ringing", "answered"], answer: ["answered"] }[when()] || [];
    if (chosen && url && wanted.includes(state) && once(call)) open(url);
  });

  const choices = () => {
    for (const choice of document.querySelectorAll("[data-pop-when]")) choice.value = when();
  };
  document.addEventListener("change", ({ target }) => {
    if (target.matches("[data-pop-when]")) localStorage.setItem("pop-when", target.value);
  });
  addEventListener("fragmentschange", choices);
  choices();

  // ---- Keys: none works inside a field ----
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
    if (localStorage.getItem("keys") === "off") return;
    if (event.key === "o") document.querySelector("[data-open-crm]")?.click();
    if (event.key === "c") document.querySelector("[data-copy-number]")?.click();
  });

  // ---- Links with tel: lead to /dial ----
  document.addEventListener("click", ({ target }) => {
    if (target.closest("[data-tel]")) navigator.registerProtocolHandler("tel", `${location.origin}/dial?number=%s`);
  });
})();
