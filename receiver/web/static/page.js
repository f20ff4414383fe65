// Keeps a page up to date and follows the log. Everything is there without it.
"use strict";
(() => {
  const lost = document.getElementById("lost");
  const say = (text) => { if (lost.textContent !== text) lost.textContent = text; };

  // --- The page itself: the same address is asked again, and what differs takes its place.

  const atEnd = (box) => box.scrollHeight - box.scrollTop - box.clientHeight < 24;
  const toEnd = (box) => { box.scrollTop = box.scrollHeight; };
  const busy = (part) => {
    const chosen = window.getSelection();
    return !chosen.isCollapsed && part.contains(chosen.anchorNode);
  };

  const swap = (part, fresh) => {
    if (part.innerHTML === fresh.innerHTML || busy(part)) return;
    const held = part.contains(document.activeElement) ? document.activeElement : null;
    const boxes = [...part.querySelectorAll("pre")].map((box) => [box.scrollTop, atEnd(box)]);
    part.innerHTML = fresh.innerHTML;
    part.querySelectorAll("pre").forEach((box, i) => {
      if (boxes[i] === undefined || boxes[i][1]) { if ("end" in box.dataset || boxes[i]) toEnd(box); }
      else box.scrollTop = boxes[i][0];
    });
    if (held) refocus(part, held);
  };

  const refocus = (part, held) => {
    const href = held.getAttribute("href");
    const again = (held.id && document.getElementById(held.id)) ||
      [...part.querySelectorAll("a")].find((link) => link.getAttribute("href") === href);
    if (again) again.focus({ preventScroll: true });
  };

  let asked = 0;
  const update = async (address) => {
    const mine = ++asked;
    const answer = await fetch(address, { headers: { Accept: "text/html" }, cache: "no-store" });
    if (answer.status === 401 || answer.status === 403) throw new Error("You are not logged in any more.");
    if (!answer.ok && answer.status !== 404) throw new Error("The ship does not answer. Trying again…");
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (mine !== asked) return;
    for (const part of document.querySelectorAll("[data-part]")) {
      const fresh = page.getElementById(part.id);
      if (fresh) swap(part, fresh);
    }
    document.title = page.title;
    const pause = page.body.dataset.refresh;
    if (pause === undefined) delete document.body.dataset.refresh;
    else document.body.dataset.refresh = pause;
    say("");
  };

  const again = () => {
    const pause = Number(document.body.dataset.refresh);
    if (!pause) return;
    setTimeout(async () => {
      try {
        if (!document.hidden) await update(location.href);
      } catch (error) {
        say(error instanceof TypeError ? "The ship does not answer. Trying again…" : error.message);
      }
      again();
    }, pause * 1000);
  };
  again();
  document.querySelectorAll("[data-end]").forEach(toEnd);

  // --- Finding a service while typing.

  for (const form of document.querySelectorAll("form[data-live]")) {
    let waiting;
    form.addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => {
        const query = new URLSearchParams(new FormData(form));
        for (const [name, value] of [...query]) if (!value) query.delete(name);
        const address = `${location.pathname}${query.size ? "?" : ""}${query}`;
        history.replaceState(null, "", address);
        update(address).catch((error) => say(error.message));
      }, 150);
    });
  }

  // --- The log: filtered here, followed by the ship's stream of events.

  const KEPT = 5000;
  const words = (box) => box.value.toLowerCase().split(/\s+/).filter(Boolean);
  const pad = (number) => String(number).padStart(2, "0");

  const line = (event, alone) => {
    const item = document.createElement("li");
    const when = new Date(event.time * 1000);
    const time = document.createElement("time");
    time.dateTime = when.toISOString();
    time.textContent = [when.getHours(), when.getMinutes(), when.getSeconds()].map(pad).join(":");
    const from = document.createElement("b");
    const process = ["web", "ship"].includes(event.process) ? "" : event.process;
    from.textContent = alone ? process || (event.service ? "web" : "ship") :
      `${event.service || "ship"} ${process}`.trimEnd();
    const text = document.createElement("span");
    text.textContent = event.content;
    item.append(time, " ", from, " ", text);
    return item;
  };

  const follow = (log, form) => {
    const list = log.querySelector("ol");
    const filter = form.querySelector("input[type=search]");
    const services = [...form.querySelectorAll("input[name=service]")].map((each) => each.value);
    const button = form.querySelector(".follow");
    const fits = (item) => {
      const text = item.textContent.toLowerCase();
      return words(filter).every((word) => text.includes(word));
    };
    let last = Number(log.dataset.last);
    let source = null;

    const take = (message) => {
      const event = JSON.parse(message.data);
      last = Math.max(last, Number(event.id) || 0);
      // The stream takes a name for the ordered service of that path, too.
      if (services.length && !services.includes(event.service)) return;
      const stay = atEnd(log);
      const item = line(event, services.length === 1);
      item.hidden = !fits(item);
      list.append(item);
      while (list.children.length > KEPT) list.firstElementChild.remove();
      if (stay) toEnd(log);
    };
    const start = () => {
      const query = new URLSearchParams(services.map((name) => ["service", name]));
      query.set("local", "");
      query.set("last-event-id", last);
      source = new EventSource(`${log.dataset.stream}?${query}`);
      source.onmessage = take;
      source.onopen = () => say("");
      source.onerror = () => say(source.readyState === EventSource.CLOSED ?
        "The log is not followed any more. Reload the page." :
        "The log is not followed just now. Trying again…");
    };
    const stop = () => { source.close(); source = null; say(""); };

    form.addEventListener("submit", (event) => event.preventDefault());
    filter.addEventListener("input", () => {
      for (const item of list.children) item.hidden = !fits(item);
      toEnd(log);
    });
    button.hidden = false;
    button.addEventListener("click", () => {
      button.setAttribute("aria-pressed", String(!source));
      if (source) stop(); else start();
    });
    toEnd(log);
    start();
    window.addEventListener("pagehide", () => source && source.close());
    window.addEventListener("pageshow", (event) => { if (event.persisted && source) start(); });
  };
  const log = document.querySelector(".log");
  const form = document.querySelector("[data-log-filter]");
  if (log && form) follow(log, form);
})();
