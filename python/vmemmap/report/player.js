"use strict";
(() => {
  const kinds = ["none", "rw", "ro", "block", "table", "word", "freed"];

  function play(root) {
    const data = JSON.parse(root.querySelector('script[type="application/json"]').textContent);
    const frames = [...root.querySelectorAll("[data-frame]")];
    const cells = [...root.querySelectorAll("[data-cell]")];
    const held = [...root.querySelectorAll("[data-cpu] .held")];
    const lanes = root.querySelector(".lanes");
    const output = root.querySelector("output");
    let at = frames.length - 1;

    function show(next) {
      at = Math.max(0, Math.min(frames.length - 1, next));
      const state = data.start.map((cell) => [...cell]);
      let stale = held.map(() => []);
      for (let i = 0; i <= at; i += 1) {
        for (const [number, kind, words] of data.frames[i].cells) state[number] = [kind, words];
        if (data.frames[i].stale) stale = data.frames[i].stale;
      }
      const changed = new Set(data.frames[at].cells.map(([number]) => number));
      cells.forEach((cell, number) => {
        cell.classList.remove(...kinds);
        cell.classList.add(state[number][0]);
        cell.classList.toggle("changed", changed.has(number));
        cell.querySelector(".is").textContent = state[number][1];
      });
      held.forEach((place, cpu) => { place.textContent = stale[cpu].join("; ") || "nothing stale"; });
      frames.forEach((frame, number) => {
        frame.classList.toggle("now", number === at);
        frame.classList.toggle("later", number > at);
        if (number === at) frame.setAttribute("aria-current", "step"); else frame.removeAttribute("aria-current");
      });
      output.textContent = `${at + 1} of ${frames.length}: step ${frames[at].querySelector(".n").textContent}`;
      const top = frames[at].offsetTop - lanes.offsetTop;
      if (top < lanes.scrollTop + 40) lanes.scrollTop = top - 60;
      const end = top + frames[at].offsetHeight;
      if (end > lanes.scrollTop + lanes.clientHeight) lanes.scrollTop = end - lanes.clientHeight + 12;
      root.querySelector('[data-go="back"]').disabled = at === 0;
      root.querySelector('[data-go="next"]').disabled = at === frames.length - 1;
    }

    const go = { first: () => show(0), back: () => show(at - 1), next: () => show(at + 1), last: () => show(frames.length - 1) };
    const keys = { ArrowLeft: "back", ArrowRight: "next", Home: "first", End: "last" };
    root.querySelector(".controls").hidden = false;
    root.addEventListener("click", (event) => {
      const button = event.target.closest("[data-go]");
      const frame = event.target.closest("[data-frame]");
      if (button) go[button.dataset.go](); else if (frame) show(Number(frame.dataset.frame));
    });
    root.addEventListener("keydown", (event) => {
      if (event.key in keys && !event.altKey && !event.ctrlKey && !event.metaKey) {
        event.preventDefault();
        go[keys[event.key]]();
      }
    });
    show(at);
  }

  const seen = new WeakSet();
  function start(within) {
    for (const root of within.querySelectorAll("[data-player]")) {
      if (!seen.has(root) && !root.closest("details:not([open])")) { seen.add(root); play(root); }
    }
  }
  start(document);
  document.addEventListener("toggle", (event) => { if (event.target.open) start(event.target); }, true);

  function reveal() {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    for (let up = target; up; up = up.parentElement) if (up.tagName === "DETAILS") up.open = true;
    target.scrollIntoView();
  }
  addEventListener("hashchange", reveal);
  reveal();

  for (const button of document.querySelectorAll("[data-copy]")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const text = button.dataset.copy;
      let done = true;
      try { await navigator.clipboard.writeText(text); } catch {
        const area = document.createElement("textarea");
        area.value = text;
        document.body.append(area);
        area.select();
        done = document.execCommand("copy");
        area.remove();
        button.focus();
      }
      button.textContent = done ? "Copied" : "Not copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
  }
})();
