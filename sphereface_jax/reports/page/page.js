"use strict";
// Draws the figures in the page's tones, redraws them when the reader changes sides, turns spheres.

const root = document.documentElement;
const darkly = matchMedia("(prefers-color-scheme: dark)");
const still = matchMedia("(prefers-reduced-motion: reduce)");
const drawn = new Map();

function tone(name, alpha = 1) {
  const key = typeof name === "number" ? `--tone-${name}` : `--${name}`;
  const hex = getComputedStyle(root).getPropertyValue(key).trim();
  if (alpha === 1) return hex;
  const [r, g, b] = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  return `rgba(${r},${g},${b},${alpha})`;
}

function paint(trace) {
  const look = trace.meta;
  if (!look) return trace;
  const color = tone(look.tone);
  const painted = { ...trace };
  if (trace.type === "surface") painted.colorscale = [[0, color], [1, color]];
  if (trace.line || trace.mode === "lines") painted.line = { ...trace.line, color };
  if (trace.marker) {
    painted.marker = { ...trace.marker, color, line: { ...trace.marker.line, color } };
  }
  if (trace.error_x) painted.error_x = { ...trace.error_x, color };
  if (look.fill) painted.fillcolor = tone(look.tone, look.fill);
  return painted;
}

function template() {
  const axis = {
    gridcolor: tone("line"), linecolor: tone("line"), zerolinecolor: tone("line"),
    tickcolor: tone("line"), automargin: true, ticks: "", zeroline: false,
    title: { font: { size: 12.5, color: tone("soft") }, standoff: 8 }, tickfont: { size: 12 },
  };
  return { layout: {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: 12.5, color: tone("soft") },
    xaxis: axis, yaxis: axis,
    scene: { bgcolor: "rgba(0,0,0,0)" },
    hoverlabel: {
      bgcolor: tone("panel"), bordercolor: tone("line"),
      font: { color: tone("ink"), size: 12.5 }, align: "left",
    },
    legend: {
      orientation: "h", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom",
      font: { size: 12, color: tone("ink") }, bgcolor: tone("panel", 0.85), itemwidth: 30,
    },
    margin: { l: 8, r: 12, t: 8, b: 8 },
  } };
}

function has3d() {
  const context = document.createElement("canvas").getContext("webgl");
  context?.getExtension("WEBGL_lose_context")?.loseContext();
  return Boolean(context);
}

async function draw(canvas) {
  const { data, layout } = drawn.get(canvas);
  const config = { responsive: true, displayModeBar: false, scrollZoom: false };
  await Plotly.react(
    canvas, data.map(paint),
    { ...layout, template: template(), dragmode: layout.scene ? undefined : false }, config,
  );
}

async function drawAll() {
  const webgl = has3d();
  for (const figure of document.querySelectorAll("figure.plot")) {
    const canvas = figure.querySelector(".canvas");
    if (figure.classList.contains("sphere") && !webgl) {
      canvas.innerHTML = '<p class="unseen">This browser has no WebGL, which the sphere needs.</p>';
      figure.querySelector(".spin").remove();
      continue;
    }
    drawn.set(canvas, JSON.parse(figure.querySelector("script").textContent));
    await draw(canvas);
    await new Promise((done) => setTimeout(done)); // let the page answer between two figures
  }
  root.dataset.drawn = String(drawn.size);
  for (const figure of document.querySelectorAll("figure.sphere:has(.spin)")) {
    turn(figure, figure.querySelector(".canvas"));
  }
}

function turn(figure, canvas) {
  const button = figure.querySelector(".spin");
  let playing = !still.matches, visible = false, dragging = false;
  let before = 0, last = performance.now(), rest = 33;
  const say = () => { button.textContent = playing ? "Pause" : "Turn"; };
  button.addEventListener("click", () => { playing = !playing; say(); });
  still.addEventListener("change", () => { playing = !still.matches; say(); });
  canvas.addEventListener("pointerdown", () => { dragging = true; });
  addEventListener("pointerup", () => { dragging = false; });
  new IntersectionObserver(([entry]) => { visible = entry.isIntersecting; }).observe(canvas);
  const frame = (now) => {
    requestAnimationFrame(frame);
    rest = Math.max(33, 2 * (now - last), 0.9 * rest); // a slow machine keeps time for its reader
    last = now;
    if (!playing || !visible || dragging || document.hidden || now - before < rest) return;
    const passed = Math.min(now - before, 100);
    before = now;
    const { eye } = canvas.layout.scene.camera;
    const radius = Math.hypot(eye.x, eye.y);
    const angle = Math.atan2(eye.y, eye.x) + passed * 1.4e-4;
    const next = { x: radius * Math.cos(angle), y: radius * Math.sin(angle), z: eye.z };
    Plotly.relayout(canvas, { "scene.camera.eye": next });
  };
  say();
  requestAnimationFrame(frame);
}

function dress(theme) {
  root.dataset.theme = theme;
  return Promise.all([...drawn.keys()].map(draw));
}

function chosen() {
  try { return localStorage.getItem("sphereface-theme"); } catch { return null; }
}

document.getElementById("theme").addEventListener("click", () => {
  const theme = root.dataset.theme === "dark" ? "light" : "dark";
  try { localStorage.setItem("sphereface-theme", theme); } catch { /* a page from disk may not */ }
  dress(theme);
});
darkly.addEventListener("change", () => { if (!chosen()) dress(darkly.matches ? "dark" : "light"); });

const links = new Map(
  [...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]),
);
const watching = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    for (const link of links.values()) link.removeAttribute("aria-current");
    const link = links.get(entry.target.id);
    link.setAttribute("aria-current", "true");
    link.closest("ul").scrollTo({ left: link.offsetLeft - 24, behavior: still.matches ? "auto" : "smooth" });
  }
}, { rootMargin: "-20% 0px -70% 0px" });
for (const part of document.querySelectorAll("section")) if (links.has(part.id)) watching.observe(part);

drawAll();
