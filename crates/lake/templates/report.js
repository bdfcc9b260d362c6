"use strict";
(() => {
  const find = (id) => document.getElementById(id);
  const data = JSON.parse(find("data").textContent);
  const [slider, play, now, moment, dot] = ["step", "play", "now", "moment", "dot"].map(find);
  const last = data.steps.length - 1;
  const radios = [...document.querySelectorAll("input[name=method]")];
  const series = data.methods.map((_, method) => document.querySelector(`.series[data-method="${method}"]`));
  const ends = data.methods.map((_, method) => document.querySelector(`.end[data-method="${method}"]`));
  // How long a measured step is looked at while the training plays, in milliseconds.
  const PACE = 700;
  // Turns of an arrow to the right, by action: left, down, right, up.
  const DEGREES = [180, 90, 0, 270];

  const cells = (id) =>
    [...find(id).querySelectorAll("[data-cell]")]
      .map((group) => ({
        cell: Number(group.dataset.cell),
        shades: [...group.querySelectorAll(".shade")],
        arrow: group.querySelector(".arrow"),
      }))
      .filter(({ shades }) => shades.length > 0);
  const [learned, difference] = [cells("learned"), cells("difference")];
  const numbers = [...find("numbers").querySelectorAll("tbody tr")].map((row) => ({
    cell: Number(row.dataset.cell),
    texts: [...row.querySelectorAll(".learned")],
  }));

  const interval = (mean, ci95) => mean.toFixed(4) + (ci95 === null ? "" : " ± " + ci95.toFixed(4));

  function show() {
    const [chosen, point] = [radios.findIndex((radio) => radio.checked), Number(slider.value)];
    const method = data.methods[chosen];
    const policy = method.snapshots[point];
    const distance = interval(method.mean[point], method.ci95[point]);
    const step = data.steps[point];

    for (const { cell, shades, arrow } of learned) {
      const row = policy[cell];
      shades.forEach((shade, action) => shade.setAttribute("fill-opacity", row[action].toFixed(3)));
      arrow.setAttribute("transform", `rotate(${DEGREES[row.indexOf(Math.max(...row))]} 50 50)`);
    }
    for (const { cell, shades } of difference) {
      shades.forEach((shade, action) => {
        const more = policy[cell][action] - data.optimal[cell][action];
        shade.setAttribute("fill-opacity", Math.abs(more).toFixed(3));
        shade.classList.toggle("less", more < 0);
      });
    }
    for (const { cell, texts } of numbers) {
      texts.forEach((text, action) => (text.textContent = policy[cell][action].toFixed(3)));
    }

    for (const drawn of [series, ends]) drawn.forEach((element, index) => element.classList.toggle("chosen", index === chosen));
    series[chosen].parentNode.append(series[chosen]);
    const left = `${(100 * point) / last}%`;
    moment.style.left = left;
    dot.style.left = left;
    dot.style.top = `${100 * (1 - method.mean[point] / data.top)}%`;
    find("chosen").textContent = method.name;
    find("after").textContent = step;
    now.textContent = `step ${step}: distance ${distance}`;
    slider.setAttribute("aria-valuetext", `step ${step}, distance ${distance}`);
  }

  let timer = null;
  function stop() {
    clearInterval(timer);
    timer = null;
    now.setAttribute("aria-live", "polite");
    play.classList.remove("playing");
    play.setAttribute("aria-label", "Play the training");
  }
  function start() {
    if (Number(slider.value) === last) slider.value = 0;
    now.setAttribute("aria-live", "off");
    play.classList.add("playing");
    play.setAttribute("aria-label", "Pause");
    timer = setInterval(() => {
      slider.value = Number(slider.value) + 1;
      show();
      if (Number(slider.value) === last) stop();
    }, PACE);
    show();
  }

  async function copy(button) {
    const recipe = find("recipe");
    try {
      await navigator.clipboard.writeText(recipe.textContent);
      button.textContent = "Copied";
    } catch {
      // Selected, the recipe is one key away.
      getSelection().selectAllChildren(recipe);
      button.textContent = "Selected";
    }
    setTimeout(() => (button.textContent = "Copy recipe"), 2000);
  }

  slider.addEventListener("input", () => {
    stop();
    show();
  });
  radios.forEach((radio) => radio.addEventListener("change", show));
  play.addEventListener("click", () => (timer === null ? start() : stop()));
  find("copy").addEventListener("click", (event) => copy(event.currentTarget));
  document.querySelector(".methods").disabled = false;
  for (const element of [find("time"), find("copy"), moment, dot]) element.hidden = false;
  show();
})();
