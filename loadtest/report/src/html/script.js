// Shows the values under the pointer, in every plot over time at once, out of the tables at the end of the page.
// The page is complete without it.
(() => {
  const data = JSON.parse(document.getElementById("lines").textContent);
  const tables = data.places.map((_, axis) => document.querySelector(`#axis${axis} tbody`)?.rows);
  const text = (axis, place, column) => tables[axis][place].cells[column].textContent;
  const plots = [...document.querySelectorAll(".chart")].map((figure, n) => {
    const chart = data.charts[n], axis = chart.axis, places = data.places[axis];
    const plot = figure.querySelector(".plot");
    // The drawing has the heights already: its points are those places that have a value.
    const points = [...plot.querySelectorAll("path.line")].map((path, l) => {
      const pairs = (path.getAttribute("d").match(/[\d.]+ [\d.]+/g) || []).map((p) => p.split(" ").map(Number));
      let next = 0;
      const column = chart.lines[l].column;
      return places.map((_, at) => (text(axis, at, column) ? pairs[next++] : null));
    });
    const make = (name) => {
      const element = document.createElement("div");
      element.className = name;
      return element;
    };
    const hair = make("hair"), tip = make("tip");
    const dots = chart.lines.map((line) => make("dot " + line.colour));
    tip.setAttribute("role", "status");
    return { chart, axis, places, plot, points, hair, tip, dots, shown: -1 };
  });

  const hide = (p) => [p.hair, p.tip, ...p.dots].forEach((element) => element.remove());

  const show = (p, at, withTip) => {
    hide(p);
    const x = p.places[at] * 100 + "%";
    p.hair.style.left = x;
    p.plot.append(p.hair);
    p.points.forEach((points, l) => {
      if (!points[at]) return;
      p.dots[l].style.left = x;
      p.dots[l].style.top = points[at][1] / 3 + "%";
      p.plot.append(p.dots[l]);
    });
    if (!withTip) return;
    const head = document.createElement("b");
    head.textContent = text(p.axis, at, 0);
    p.tip.replaceChildren(head);
    for (const line of p.chart.lines) {
      const row = document.createElement("div"), name = document.createElement("i"), value = document.createElement("span");
      name.className = line.colour;
      name.textContent = line.name;
      value.textContent = text(p.axis, at, line.column) || "–";
      row.append(name, value);
      p.tip.append(row);
    }
    p.plot.append(p.tip);
    const room = p.plot.clientWidth, place = p.places[at] * room, width = p.tip.offsetWidth;
    const left = place + 14 + width <= room ? place + 14 : Math.max(-60, place - 14 - width);
    p.tip.style.left = left + "px";
  };

  const all = (p, at) => {
    p.shown = at;
    for (const other of plots) {
      if (other === p) show(p, at, true);
      else if (p.axis === 0 && other.axis === 0) show(other, at, false);
    }
  };
  const clear = () => plots.forEach(hide);

  for (const p of plots) {
    const nearest = (share) => {
      let best = 0;
      p.places.forEach((x, at) => {
        if (Math.abs(x - share) < Math.abs(p.places[best] - share)) best = at;
      });
      return best;
    };
    const point = (event) => {
      const box = p.plot.getBoundingClientRect();
      all(p, nearest((event.clientX - box.left) / box.width));
    };
    p.plot.addEventListener("pointermove", point);
    p.plot.addEventListener("pointerdown", point);
    p.plot.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && clear());
    p.plot.addEventListener("blur", clear);
    p.plot.addEventListener("keydown", (event) => {
      const last = p.places.length - 1;
      const to = { ArrowLeft: p.shown - 1, ArrowRight: p.shown + 1, Home: 0, End: last }[event.key];
      if (event.key === "Escape") clear();
      if (to === undefined) return;
      event.preventDefault();
      all(p, Math.min(last, Math.max(0, to)));
    });
  }
  addEventListener("beforeprint", () => {
    clear();
    document.querySelectorAll("details.evidence").forEach((details) => { details.open = true; });
  });
})();
