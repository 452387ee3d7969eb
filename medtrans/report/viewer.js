"use strict";
// The planes of a page: medtrans/report/packing.py says what `scene` and the voxels are.
(() => {
const find = (id) => document.getElementById(id);
const scene = JSON.parse(find("scene").textContent);
const { size, layers } = scene;

// Axes of a plane: across (to the right), down, and through it; 0 to the left of the patient,
// 1 to the back, 2 downwards.
const PLANES = {
  axial: { across: 0, down: 1, through: 2 },
  coronal: { across: 0, down: 2, through: 1 },
  sagittal: { across: 1, down: 2, through: 0 },
};
const JUMP = [1, size[0], size[0] * size[1]];
const MAP_COLOURS = [[0, 0, 0], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]];
const FULL = { level: 50, width: 100 }; // percent of a layer's own window

const at = [...scene.start];
const windows = { image: { ...FULL }, map: { ...FULL } };
const tiles = [];
let view = null; // the number of a layer; null for all

const kindOf = (layer) => (layer.map ? "map" : "image");
const indexOf = (role) => layers.findIndex((layer) => layer.role === role);
const first = indexOf("source") >= 0 ? "source" : "reference"; // what flickers with the synthetic
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const inUnit = (value, step) =>
  value.toFixed(clamp(Math.ceil(-Math.log10(step || 1) - 1e-9), 0, 6)).replace("-", "−");

// ---- voxels -------------------------------------------------------------------------------

async function unpack(layer, number) {
  const packed = Uint8Array.from(atob(find(`voxels-${number}`).textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const count = size[0] * size[1] * size[2];
  layer.codes = new Uint16Array(count);
  if (layer.bits <= 8) layer.codes.set(bytes);
  else for (let i = 0; i < count; i++) layer.codes[i] = (bytes[i] << 8) | bytes[count + i];
}

function shownWindow(layer) {
  const { level, width } = windows[kindOf(layer)];
  const [low, high] = layer.window;
  const middle = low + ((high - low) * level) / 100;
  const half = ((high - low) * width) / 200;
  return [middle - half, middle + half];
}

function colour(layer, share) {
  if (!layer.map) return [share * 255, share * 255, share * 255];
  const place = share * (MAP_COLOURS.length - 1);
  const from = Math.min(Math.floor(place), MAP_COLOURS.length - 2);
  return MAP_COLOURS[from].map((v, i) => v + (MAP_COLOURS[from + 1][i] - v) * (place - from));
}

function colourAll(layer) {
  const [low, high] = shownWindow(layer);
  layer.colours = new Uint32Array(1 << layer.bits).fill(0xff000000); // as bytes: red, green, blue, 255
  for (let code = 1; code < layer.colours.length; code++) {
    const value = layer.first + (code - 1) * layer.step;
    const [r, g, b] = colour(layer, clamp((value - low) / (high - low), 0, 1)).map(Math.round);
    layer.colours[code] = (0xff000000 | (b << 16) | (g << 8) | r) >>> 0;
  }
}

function valueHere(layer) {
  const code = layer.codes[at[0] + at[1] * JUMP[1] + at[2] * JUMP[2]];
  const unit = layer.unit ? ` ${layer.unit}` : "";
  if (code === 0) return (layer.blank === null ? "–" : inUnit(layer.blank, layer.step)) + unit;
  const last = layer.codes.top ??= layer.codes.reduce((a, b) => Math.max(a, b), 0);
  const more = code === 1 && layer.cut[0] ? "≤ " : code === last && layer.cut[1] ? "≥ " : "";
  return more + inUnit(layer.first + (code - 1) * layer.step, layer.step) + unit;
}

// ---- drawing ------------------------------------------------------------------------------

function draw(tile) {
  const { across, down, through } = PLANES[tile.plane];
  const { codes, colours } = tile.layer;
  const pixels = new Uint32Array(tile.pixels.data.buffer);
  let out = 0;
  for (let y = 0; y < size[down]; y++) {
    let from = at[through] * JUMP[through] + y * JUMP[down];
    for (let x = 0; x < size[across]; x++, from += JUMP[across]) pixels[out++] = colours[codes[from]];
  }
  tile.canvas.getContext("2d").putImageData(tile.pixels, 0, 0);
  tile.down.style.left = `${(100 * (at[across] + 0.5)) / size[across]}%`;
  tile.across.style.top = `${(100 * (at[down] + 0.5)) / size[down]}%`;
  tile.canvas.setAttribute("aria-label", `${tile.layer.name}, ${sliceText(tile.plane)}`);
}

function sliceText(plane) {
  const axis = PLANES[plane].through;
  return `${plane} slice ${sliceNumber(axis)} of ${size[axis]}`;
}

// Slices count from the patient's right, back or feet: axes 1 and 2 run the other way.
const sliceNumber = (axis) => (axis === 0 ? at[axis] + 1 : size[axis] - at[axis]);

function apply(matrix) {
  return matrix.map((row) => row[0] * at[0] + row[1] * at[1] + row[2] * at[2] + row[3]);
}

function readOut() {
  const letters = ["LR", "PA", "IS"];
  const mm = apply(scene.mm).map((v, i) => `${letters[i][v < 0 ? 0 : 1]} ${Math.abs(v).toFixed(1)}`);
  const parts = [["Crosshair", `${mm.join(" · ")} mm`], ["Voxel", apply(scene.voxel).map(Math.round).join(", ")]];
  for (const layer of layers) parts.push([layer.name, valueHere(layer)]);
  find("readout").replaceChildren(...parts.map(([name, value]) => {
    const part = document.createElement("span");
    const label = document.createElement("b");
    label.textContent = `${name}: `;
    part.append(label, value);
    return part;
  }));
}

const stale = new Set();
function refresh(what) {
  if (!stale.size) requestAnimationFrame(render);
  stale.add(what);
}

function render() {
  if (stale.has("windows")) {
    layers.forEach(colourAll);
    for (const tile of tiles) {
      const [low, high] = shownWindow(tile.layer).map((v) => inUnit(v, (tile.layer.window[1] - tile.layer.window[0]) / 200));
      tile.range.textContent = `${low} – ${high}${tile.layer.unit ? ` ${tile.layer.unit}` : ""}`;
    }
    const { level, width } = windows[view === null ? "image" : kindOf(layers[view])];
    find("level").value = level;
    find("width").value = width;
  }
  for (const tile of tiles) if (!tile.root.hidden) draw(tile);
  for (const slider of document.querySelectorAll(".slider input")) {
    slider.value = sliceNumber(PLANES[slider.dataset.plane].through);
    slider.setAttribute("aria-valuetext", sliceText(slider.dataset.plane));
    slider.nextElementSibling.textContent = `${slider.value} / ${slider.max}`;
  }
  readOut();
  stale.clear();
}

// ---- what a person does -------------------------------------------------------------------

function moveTo(axis, index) {
  at[axis] = clamp(Math.round(index), 0, size[axis] - 1);
  refresh("place");
}

function setWindow(kind, level, width) {
  windows[kind] = { level: clamp(level, -50, 150), width: clamp(width, 5, 400) };
  refresh("windows");
}

function show(choice) {
  const focused = tiles.find((tile) => tile.canvas === document.activeElement);
  view = choice;
  for (const tile of tiles) tile.root.hidden = view !== null && tile.layer !== layers[view];
  for (const button of find("layers").children) {
    button.setAttribute("aria-pressed", String(button.dataset.view === String(view)));
  }
  const together = view !== null ? [] : layers.length > 3 ? ["several", "many"] : ["several"];
  find("planes").className = [...(scene.planes.length === 1 ? ["one"] : []), ...together].join(" ");
  if (focused?.root.hidden) {
    tiles.find((tile) => tile.plane === focused.plane && !tile.root.hidden).canvas.focus();
  }
  refresh("windows");
}

function flicker(one, other) {
  const [a, b] = [indexOf(one), indexOf(other)];
  if (a >= 0 && b >= 0) show(view === b ? a : b);
}

function reset() {
  for (const axis of [0, 1, 2]) at[axis] = scene.start[axis];
  for (const kind of Object.keys(windows)) windows[kind] = { ...FULL };
  refresh("windows");
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const number = "0123456789".indexOf(event.key);
  const keys = {
    f: () => flicker(first, "synthetic"),
    g: () => flicker("reference", "synthetic"),
    r: reset,
    c: () => find("planes").parentElement.classList.toggle("plain"),
  };
  const action = keys[event.key.toLowerCase()];
  if (action) action();
  else if (number === 0) show(null);
  else if (number > 0 && number <= layers.length) show(number - 1);
}

function onPlaneKey(event, tile) {
  const { across, down, through } = PLANES[tile.plane];
  const kind = kindOf(tile.layer);
  const { level, width } = windows[kind];
  const turns = event.shiftKey
    ? {
      ArrowLeft: () => setWindow(kind, level, width / 1.1), ArrowRight: () => setWindow(kind, level, width * 1.1),
      ArrowUp: () => setWindow(kind, level - 2, width), ArrowDown: () => setWindow(kind, level + 2, width),
    }
    : {
      ArrowLeft: () => moveTo(across, at[across] - 1), ArrowRight: () => moveTo(across, at[across] + 1),
      ArrowUp: () => moveTo(down, at[down] - 1), ArrowDown: () => moveTo(down, at[down] + 1),
      PageUp: () => step(through, 1), PageDown: () => step(through, -1),
    };
  if (!turns[event.key]) return;
  event.preventDefault();
  turns[event.key]();
}

const step = (axis, by) => moveTo(axis, at[axis] + (axis === 0 ? by : -by));

function followPointer(tile) {
  const { across, down } = PLANES[tile.plane];
  const { canvas } = tile;
  let begun = null;
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    moveTo(across, ((event.clientX - box.left) / box.width) * size[across] - 0.5);
    moveTo(down, ((event.clientY - box.top) / box.height) * size[down] - 0.5);
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    const asked = document.querySelector("input[name=drag]:checked").value === "crosshair";
    begun = { x: event.clientX, y: event.clientY, crosshair: asked !== event.shiftKey, moved: false, ...windows[kindOf(tile.layer)] };
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!begun) return;
    const [x, y] = [event.clientX - begun.x, event.clientY - begun.y];
    begun.moved ||= Math.hypot(x, y) > 4;
    if (!begun.moved) return;
    if (begun.crosshair) place(event);
    else setWindow(kindOf(tile.layer), begun.level + y / 3, begun.width * Math.exp(x / 150));
  });
  canvas.addEventListener("pointerup", (event) => {
    if (begun && !begun.moved) place(event);
    begun = null;
  });
  canvas.addEventListener("pointercancel", () => { begun = null; });
  canvas.addEventListener("dblclick", () => setWindow(kindOf(tile.layer), FULL.level, FULL.width));
}

function followWheel(tile) {
  tile.canvas.addEventListener("wheel", (event) => {
    if (document.activeElement !== tile.canvas) return; // the page scrolls
    event.preventDefault();
    step(PLANES[tile.plane].through, event.deltaY < 0 ? 1 : -1);
  }, { passive: false });
}

// ---- building the page --------------------------------------------------------------------

function make(tag, className, parent, text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  parent.append(made);
  return made;
}

function addSlider(plane, section) {
  const row = make("label", "slider", section);
  make("b", "", row, plane);
  const slider = make("input", "", row);
  Object.assign(slider, { type: "range", min: 1, max: size[PLANES[plane].through], step: 1 });
  slider.disabled = size[PLANES[plane].through] === 1;
  slider.dataset.plane = plane;
  slider.addEventListener("input", () => {
    const axis = PLANES[plane].through;
    moveTo(axis, axis === 0 ? slider.value - 1 : size[axis] - slider.value);
  });
  make("span", "", row);
}

// Planes of one page have one scale in millimetres: a frame takes its share of the largest.
function addTile(plane, layer, parent) {
  const { across, down } = PLANES[plane];
  const length = (axis) => size[axis] * scene.spacing[axis];
  const widest = Math.max(...scene.planes.map((p) => length(PLANES[p].across)));
  const highest = Math.max(...scene.planes.map((p) => length(PLANES[p].down)));
  const root = make("figure", `tile ${layer.role === "source" || layer.role === "reference" ? "" : "synthetic"}`, parent);
  const caption = make("figcaption", "", root);
  make("b", "", caption, layer.name);
  const range = make("span", "", caption);
  const box = make("div", "box", root);
  box.style.aspectRatio = `${widest} / ${highest}`;
  const frame = make("div", "frame", box);
  frame.style.width = `${(100 * length(across)) / widest}%`;
  frame.style.height = `${(100 * length(down)) / highest}%`;
  const canvas = make("canvas", "", frame);
  Object.assign(canvas, { width: size[across], height: size[down], tabIndex: 0 });
  Object.assign(canvas.dataset, { plane, role: layer.role });
  canvas.setAttribute("role", "application");
  canvas.setAttribute("aria-roledescription", "plane");
  const lines = { down: make("div", "line down", frame), across: make("div", "line across", frame) };
  const [left, right, top, bottom] = [...scene.ends[across], ...scene.ends[down]];
  for (const [side, letter] of Object.entries({ left, right, top, bottom })) make("span", `end ${side}`, box, letter);
  const pixels = canvas.getContext("2d").createImageData(canvas.width, canvas.height);
  const tile = { plane, layer, root, range, canvas, pixels, ...lines };
  canvas.addEventListener("keydown", (event) => onPlaneKey(event, tile));
  followPointer(tile);
  followWheel(tile);
  tiles.push(tile);
}

function addButton(name, choice, key) {
  const button = make("button", "", find("layers"), `${name} `);
  button.type = "button";
  button.dataset.view = String(choice);
  make("kbd", "", button, key);
  button.setAttribute("aria-keyshortcuts", key);
  button.addEventListener("click", () => show(choice));
}

async function start() {
  await Promise.all(layers.map(unpack));
  for (const plane of scene.planes) {
    const section = make("section", "plane", find("planes"));
    section.setAttribute("aria-label", plane);
    addSlider(plane, section);
    const column = make("div", "tiles", section);
    for (const layer of layers) addTile(plane, layer, column);
  }
  addButton("All", null, "0");
  layers.forEach((layer, number) => addButton(layer.name, number, String(number + 1)));
  find("flicker").addEventListener("click", () => flicker(first, "synthetic"));
  find("reset").addEventListener("click", reset);
  const kind = () => (view === null ? "image" : kindOf(layers[view]));
  find("level").addEventListener("input", (event) => setWindow(kind(), Number(event.target.value), windows[kind()].width));
  find("width").addEventListener("input", (event) => setWindow(kind(), windows[kind()].level, Number(event.target.value)));
  document.addEventListener("keydown", onKey);
  show(null);
  render();
  find("viewer").hidden = false;
  find("still").hidden = true;
}

if ("DecompressionStream" in window) start();
})();
