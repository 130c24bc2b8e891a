// Time travel: the field takes a time in the viewer's zone; the slider and the arrow keys move on.
(() => {
  "use strict";
  const go = (moment) => { location.href = `/now?at=${moment.toISOString().slice(0, 19)}Z`; };
  document.addEventListener("submit", (event) => {
    if (!event.target.matches("form[data-at]")) return;
    event.preventDefault();
    const [hours, minutes, seconds = 0] = event.target.elements.at.value.split(":").map(Number);
    const moment = new Date();
    moment.setHours(hours, minutes, seconds, 0);
    if (moment > new Date()) moment.setDate(moment.getDate() - 1);
    go(moment);
  });
  for (const field of document.querySelectorAll("[data-moment]")) field.placeholder = new Date(field.dataset.moment).toTimeString().slice(0, 5);
  const slider = document.querySelector("[data-day]");
  if (!slider) return;
  slider.addEventListener("change", () => go(new Date(new Date(slider.dataset.day).getTime() + slider.value * 1000)));
  addEventListener("keydown", (event) => {
    const step = { ArrowLeft: "back", ArrowRight: "on" }[event.key];
    if (!step || event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea, dialog[open]")) return;
    if (localStorage.getItem("keys") === "off") return;
    document.querySelector(`[data-step="${step}"]`).click();
  });
})();
