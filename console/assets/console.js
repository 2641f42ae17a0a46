// Conveniences; every page works without them. `/` goes to the search box, a button tells how many rows are ticked, and pages
// that show the newest are live: when the server tells that something has changed, the page is fetched again and its live part replaced, unless somebody is busy in it.
"use strict";

document.addEventListener("keydown", (event) => {
  const busy = event.target.closest("input, select, textarea, [contenteditable]");
  if (event.key === "/" && !busy && !event.ctrlKey && !event.metaKey && !event.altKey) {
    const find = document.getElementById("find");
    if (find) {
      event.preventDefault();
      find.focus();
      find.select();
    }
  }
});

const countPicks = () => {
  const button = document.querySelector("[data-count-picks]");
  if (!button) return;
  const count = button.form.querySelectorAll("input[name=pick]:checked").length;
  button.textContent = count === 0 ? "Redrive the chosen ones …" : "Redrive these " + count + " chosen …";
};
document.addEventListener("change", countPicks);
window.addEventListener("pageshow", countPicks);

const part = () => document.querySelector("[data-part]");

const isBusy = (element) =>
  document.hidden ||
  element.contains(document.activeElement) ||
  element.querySelector("details[open]") !== null ||
  String(window.getSelection()) !== "";

const tell = (word, live) => {
  const sign = document.querySelector("[data-live-sign]");
  const text = document.querySelector("[data-live-word]");
  if (sign && text) {
    sign.className = live ? "dot good live" : "dot idle";
    text.textContent = word;
  }
};

if (part() && window.EventSource) {
  let due = false;
  let loading = false;
  let connected = false;

  const load = async () => {
    const old = part();
    if (!due || loading || !old || isBusy(old)) return;
    due = false;
    loading = true;
    try {
      const answer = await fetch(window.location.href, { headers: { accept: "text/html" } });
      if (!answer.ok) throw new Error(answer.statusText);
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.getElementById(old.id);
      if (fresh && !isBusy(old)) {
        old.replaceWith(document.adoptNode(fresh));
        tell(connected ? "live, as of " + new Date().toISOString().slice(11, 19) : "not live", connected);
      } else {
        due = true;
      }
    } catch {
      due = true;
    } finally {
      loading = false;
    }
  };

  const stream = new EventSource(document.body.dataset.live);
  stream.addEventListener("live", () => {
    connected = true;
    tell("live, as of " + new Date().toISOString().slice(11, 19), true);
    // Something may have changed since the page was loaded, or while the connection was lost.
    due = true;
    load();
  });
  stream.addEventListener("changed", () => {
    due = true;
    load();
  });
  stream.addEventListener("error", () => {
    connected = false;
    tell("not live: the connection is lost", false);
  });
  // What came while somebody was busy in the page.
  setInterval(load, 2000);
}
