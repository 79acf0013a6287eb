
"use strict";
(async () => {
  const $ = id => document.getElementById(id);

  // ---- data ---------------------------------------------------------------------------------------------------
  // The format is that of memstore/visualize/page.py: a header of JSON, then typed arrays, compressed by gzip.
  async function decodeData() {
    const compressed = Uint8Array.from(atob($("data").textContent), c => c.charCodeAt(0));
    const stream = new Blob([compressed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const bytes = await new Response(stream).arrayBuffer();
    $("data").textContent = "";
    const size = new DataView(bytes).getUint32(0, true);
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 4, size)));
    const start = Math.ceil((4 + size) / 8) * 8;
    const types = { f4: Float32Array, f8: Float64Array, u4: Uint32Array };
    for (const [name, type, offset, length] of header.arrays)
      header[name] = new types[type](bytes, start + offset, length);
    return header;
  }

  const data = await decodeData();
  const n = data.x.length;
  const groups = data.groups; // the largest first
  const slice = (values, ends, k) => values.subarray(k ? ends[k - 1] : 0, ends[k]);
  const membersOf = g => slice(data.memberIndexes, data.memberEnds, g);
  const tagsOf = i => Array.from(slice(data.tagIndexes, data.tagEnds, i), t => data.tags[t]);
  const textOf = i => data.texts[i] || "(no text)";

  // A point has the colour of the smallest of its assemblies, which is the most specific one.
  const mainGroup = new Int32Array(n).fill(-1);
  const pointGroups = new Map();
  for (let g = 0; g < groups.length; g++)
    for (const i of membersOf(g)) {
      mainGroup[i] = g;
      const list = pointGroups.get(i);
      if (list) list.push(g); else pointGroups.set(i, [g]);
    }
  const groupsOf = i => pointGroups.get(i) || [];

  // ---- texts and elements -------------------------------------------------------------------------------------
  const count = k => k.toLocaleString("en");
  const noun = (k, singular, plural) => `${count(k)} ${k === 1 ? singular : plural}`;
  const timeFormat = (from, to) => s => {
    const date = new Date(s * 1000);
    return isNaN(date) ? "?" : date.toISOString().slice(from, to).replace("T", " ");
  };
  const day = timeFormat(0, 10), minute = timeFormat(0, 16), second = timeFormat(0, 19);

  function element(name, text = "", ...children) {
    const node = document.createElement(name);
    if (text) node.textContent = text; // never innerHTML: texts of records are data, not markup
    node.append(...children);
    return node;
  }

  function button(onclick, text, ...children) {
    const node = element("button", text, ...children);
    node.type = "button";
    node.onclick = onclick;
    return node;
  }

  // ---- colours ------------------------------------------------------------------------------------------------
  const DARK = ["#5aa9ff", "#ffb02e", "#45d08e", "#ff6b9a", "#a98bff", "#35d0d0", "#e5d33a", "#ff8a66", "#a3d34b", "#d79bff"];
  const LIGHT = ["#1f6fd1", "#c77700", "#1e8f55", "#c73668", "#6b46c9", "#0f8a8a", "#8c7a00", "#cf4520", "#5c8a14", "#9447d1"];
  let light = matchMedia("(prefers-color-scheme: light)").matches;
  let groupColours = [], ungroupedColour = [], background = [];

  function rgb(text) {
    if (text[0] === "#") return [1, 3, 5].map(k => parseInt(text.slice(k, k + 2), 16));
    const [h, s, l] = text.match(/[\d.]+/g).map(Number), a = s / 100 * Math.min(l, 100 - l) / 100;
    const channel = k => l / 100 - a * Math.max(-1, Math.min((k + h / 30) % 12 - 3, 9 - (k + h / 30) % 12, 1));
    return [0, 8, 4].map(k => Math.round(255 * channel(k)));
  }
  const css = (colour, alpha = 1) => `rgba(${colour[0]},${colour[1]},${colour[2]},${alpha})`;
  const colourOf = i => colourGroup[i] < 0 ? ungroupedColour : groupColours[colourGroup[i]];

  function applyTheme() {
    document.documentElement.classList.toggle("light", light);
    $("theme").textContent = light ? "Dark" : "Light";
    const palette = light ? LIGHT : DARK;
    // Beyond the palette, hues are a golden angle apart, so that neighbours in the list differ.
    groupColours = groups.map((_, g) => rgb(palette[g] || `hsl(${(g * 137.508) % 360} 62% ${light ? 42 : 66}%)`));
    ungroupedColour = rgb(light ? "#6d7788" : "#8d99ad");
    background = rgb(light ? "#fbfbf8" : "#0e1116");
    for (const dot of document.querySelectorAll("i[data-group]")) dot.style.background = css(groupColours[dot.dataset.group]);
    requestDraw();
    drawHistogram();
  }

  // ---- filter -------------------------------------------------------------------------------------------------
  const visible = new Uint8Array(n).fill(1), colourGroup = mainGroup.slice();
  const groupMatches = new Uint32Array(groups.length), groupSelection = new Set();
  let visibleCount = n, filterActive = false, searchTexts = null;
  let firstTime = Infinity, lastTime = -Infinity;
  for (const t of data.created) { firstTime = Math.min(firstTime, t); lastTime = Math.max(lastTime, t); }
  const byTime = Uint32Array.from({ length: n }, (_, i) => i).sort((a, b) => data.created[a] - data.created[b] || a - b);
  const timeAt = position => firstTime + (lastTime - firstTime) * position / 1000;
  const duration = lastTime - firstTime;
  const sliderTime = duration < 3600 ? second : duration < 2 * 86400 ? minute : day;

  function hasTag(i, tagSet) {
    for (let k = i ? data.tagEnds[i - 1] : 0; k < data.tagEnds[i]; k++) if (tagSet.has(data.tagIndexes[k])) return true;
    return false;
  }

  function applyFilter() {
    const terms = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const words = terms.filter(term => term[0] !== "#" || term.length === 1);
    const tagSets = terms.filter(term => term[0] === "#" && term.length > 1)
      .map(term => new Set(data.tags.flatMap((tag, t) => tag.toLowerCase().startsWith(term.slice(1)) ? [t] : [])));
    if (words.length && !searchTexts)
      searchTexts = data.texts.map((text, i) => `${text}\n${data.ids[i]}\n${tagsOf(i).join("\n")}`.toLowerCase());
    const start = +$("rangeStart").value, end = +$("rangeEnd").value;
    const allTimes = start === 0 && end === 1000, startTime = timeAt(start), endTime = timeAt(end);
    const isMember = groupSelection.size ? new Uint8Array(n) : null;
    colourGroup.set(mainGroup);
    for (const g of groupSelection) // members have the colour of the selected assembly
      for (const i of membersOf(g)) { isMember[i] = 1; colourGroup[i] = g; }
    visibleCount = 0;
    for (let i = 0; i < n; i++) {
      const match = (allTimes || data.created[i] >= startTime && data.created[i] <= endTime)
        && (!isMember || isMember[i])
        && (!words.length || words.every(word => searchTexts[i].includes(word)))
        && (!tagSets.length || tagSets.every(tagSet => hasTag(i, tagSet)));
      visible[i] = match ? 1 : 0;
      visibleCount += visible[i];
    }
    filterActive = terms.length > 0 || groupSelection.size > 0 || !allTimes;
    for (let g = 0; g < groups.length; g++) groupMatches[g] = membersOf(g).reduce((k, i) => k + visible[i], 0);
    $("status").textContent = filterActive ? `${count(visibleCount)} of ${noun(n, "memory", "memories")} match` : "";
    $("startLabel").textContent = sliderTime(startTime);
    $("endLabel").textContent = sliderTime(endTime);
    listResults(terms.length || groupSelection.size ? 50 : 0);
    requestDraw();
    drawHistogram();
  }

  /** List the newest visible memories. */
  function listResults(limit) {
    const rows = [];
    for (let k = n - 1; k >= 0 && rows.length < limit; k--) if (visible[byTime[k]]) rows.push(resultRow(byTime[k]));
    $("results").replaceChildren(...rows);
  }

  function resultRow(i) {
    const dot = element("i");
    dot.style.background = css(colourOf(i));
    return element("li", "", button(() => { showDetails(i); centreOn(i); }, "", dot, element("span", data.texts[i] || data.ids[i])));
  }

  // ---- view: from coordinates of the plane to pixels of the screen --------------------------------------------
  const canvas = $("points"), overlay = $("overlay");
  const pointsPen = canvas.getContext("2d", { alpha: false }), overlayPen = overlay.getContext("2d");
  let width = 1, height = 1, ratio = 1, image = null; // device pixels, and how many of them a CSS pixel has
  let scale = 1, fitScale = 1, centreX = 0, centreY = 0;
  let hoverPoint = -1, detailPoint = -1, legendGroup = -1;
  let namesOn = true, outlinesOn = groups.length > 0 && groups.length <= 6;

  const screenX = x => (x - centreX) * scale + width / 2;
  const screenY = y => (centreY - y) * scale + height / 2;

  /** The margins that the panels cover, in device pixels. */
  function margins() {
    const panel = $("panel").hidden ? null : $("panel").getBoundingClientRect(), wide = innerWidth > 640;
    return {
      left: (panel && wide ? panel.right + 12 : 12) * ratio,
      right: 12 * ratio,
      top: (panel && !wide ? panel.bottom + 12 : 48) * ratio,
      bottom: ($("timeline").hidden ? 12 : 80) * ratio,
    };
  }

  function extent(values) {
    const sorted = Float32Array.from(values).sort();
    const cut = n > 1000 ? Math.floor(n * 0.001) : 0; // a few outliers would make the rest too small
    return [sorted[cut], sorted[n - 1 - cut]];
  }

  /** Put a position of the plane in the middle of the area that no panel covers. */
  function centreAt(x, y) {
    const m = margins();
    centreX = x - (m.left - m.right) / 2 / scale;
    centreY = y - (m.bottom - m.top) / 2 / scale;
    requestDraw();
  }
  const centreOn = i => centreAt(data.x[i], data.y[i]);

  function showAll() {
    const m = margins();
    const w = Math.max(60, width - m.left - m.right), h = Math.max(60, height - m.top - m.bottom);
    const [left, right] = n ? extent(data.x) : [0, 0], [bottom, top] = n ? extent(data.y) : [0, 0];
    scale = fitScale = 0.94 * Math.min(w / (right - left || 1e-9), h / (top - bottom || 1e-9), 1e9);
    if (right === left && top === bottom) scale = fitScale = Math.min(w, h);
    centreAt((left + right) / 2, (bottom + top) / 2);
  }

  function resize() {
    ratio = Math.min(2, devicePixelRatio || 1);
    width = Math.max(1, Math.round(innerWidth * ratio));
    height = Math.max(1, Math.round(innerHeight * ratio));
    for (const c of [canvas, overlay]) { c.width = width; c.height = height; }
    image = pointsPen.createImageData(width, height);
    showAll();
    drawHistogram();
  }

  // ---- drawing ------------------------------------------------------------------------------------------------
  let drawPending = false;
  function requestDraw() {
    if (drawPending) return;
    drawPending = true;
    requestAnimationFrame(() => { drawPending = false; drawPoints(); drawOverlay(); });
  }

  function pointRadius() {
    const base = n <= 300 ? 5 : n <= 3000 ? 4 : n <= 20000 ? 2.6 : 1.5;
    return Math.min(6.5, base * Math.max(1, scale / fitScale) ** 0.3) * ratio;
  }

  /** The pixels of a disc, as offsets into the image data, and their coverage, 0 to 256. */
  function disc(radius, alpha) {
    const offsets = [], coverage = [], reach = Math.ceil(radius + 0.5);
    for (let dy = -reach; dy <= reach; dy++)
      for (let dx = -reach; dx <= reach; dx++) {
        const c = Math.max(0, Math.min(1, radius + 0.5 - Math.hypot(dx, dy)));
        if (c > 0.02) { offsets.push((dy * width + dx) * 4); coverage.push(Math.round(256 * c * alpha)); }
      }
    return { offsets: Int32Array.from(offsets), coverage: Int32Array.from(coverage), reach };
  }

  // Pixels are blended here, not by the canvas: its arc() and fill() take ten times as long for 100,000 discs.
  function drawPoints() {
    const pixels = image.data, pixel = new Uint8Array([...background, 255]);
    new Uint32Array(pixels.buffer).fill(new Uint32Array(pixel.buffer)[0]);
    const radius = pointRadius(), zoomed = Math.max(1, scale / fitScale);
    const alpha = Math.min(0.95, (n <= 3000 ? 0.85 : n <= 20000 ? 0.6 : 0.42) * zoomed ** 0.25);
    const full = disc(radius, visibleCount < n / 4 ? Math.max(alpha, 0.8) : alpha);
    const faint = disc(Math.max(1, radius * 0.7), light ? 0.13 : 0.16);
    for (let pass = 0; pass < 3; pass++) { // filtered out, then in no assembly, then in an assembly: the last on top
      const { offsets, coverage, reach } = pass ? full : faint;
      for (let i = 0; i < n; i++) {
        if (pass === 0 ? visible[i] : !visible[i] || (colourGroup[i] < 0) !== (pass === 1)) continue;
        const x = Math.round(screenX(data.x[i])), y = Math.round(screenY(data.y[i]));
        if (!(x >= reach && y >= reach && x < width - reach && y < height - reach)) continue;
        const [red, green, blue] = pass === 0 ? ungroupedColour : colourOf(i);
        const start = (y * width + x) * 4;
        for (let k = 0; k < offsets.length; k++) {
          const p = start + offsets[k], c = coverage[k];
          pixels[p] += ((red - pixels[p]) * c) >> 8;
          pixels[p + 1] += ((green - pixels[p + 1]) * c) >> 8;
          pixels[p + 2] += ((blue - pixels[p + 2]) * c) >> 8;
        }
      }
    }
    pointsPen.putImageData(image, 0, 0);
  }

  const groupCentres = groups.map((_, g) => {
    const members = membersOf(g);
    if (!members.length) return null;
    const median = values => Float32Array.from(members, i => values[i]).sort()[members.length >> 1];
    return [median(data.x), median(data.y)];
  });
  const hullCache = new Map();

  /** The convex hull of an assembly, without the tenth of its members that is farthest from its centre. */
  function hull(g) {
    if (hullCache.has(g)) return hullCache.get(g);
    const [x, y] = groupCentres[g], distance = p => Math.hypot(p[0] - x, p[1] - y);
    let points = Array.from(membersOf(g), i => [data.x[i], data.y[i]]).sort((a, b) => distance(a) - distance(b));
    if (points.length >= 10) points = points.slice(0, Math.ceil(points.length * 0.9));
    points.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
    const halfHull = list => { // Andrew's monotone chain
      const chain = [];
      for (const p of list) {
        while (chain.length > 1) {
          const [a, b] = chain.slice(-2);
          if ((b[0] - a[0]) * (p[1] - a[1]) - (b[1] - a[1]) * (p[0] - a[0]) > 0) break;
          chain.pop();
        }
        chain.push(p);
      }
      return chain.slice(0, -1);
    };
    hullCache.set(g, points.length < 2 ? points : [...halfHull(points), ...halfHull(points.reverse())]);
    return hullCache.get(g);
  }

  function drawHull(g, strong) {
    overlayPen.beginPath();
    hull(g).forEach(([x, y], k) => overlayPen[k ? "lineTo" : "moveTo"](screenX(x), screenY(y)));
    overlayPen.closePath();
    overlayPen.lineJoin = "round";
    overlayPen.strokeStyle = css(groupColours[g], strong ? 0.9 : 0.35);
    overlayPen.lineWidth = (strong ? 2 : 1.2) * ratio;
    overlayPen.fillStyle = css(groupColours[g], strong ? 0.1 : 0.04);
    overlayPen.fill();
    overlayPen.stroke();
  }

  const MAX_OUTLINES = 40, MAX_LABELS = 36, MAX_LABEL_GROUPS = 120;

  function drawOverlay() {
    overlayPen.clearRect(0, 0, width, height);
    const strongGroups = new Set(groupSelection);
    if (legendGroup >= 0) strongGroups.add(legendGroup);
    for (const i of [hoverPoint, detailPoint]) if (i >= 0 && mainGroup[i] >= 0) strongGroups.add(mainGroup[i]);
    const otherGroups = groupSelection.size ? [] : groups.map((_, g) => g).filter(g => groupCentres[g] && !strongGroups.has(g));
    if (outlinesOn) for (const g of otherGroups) if (g < MAX_OUTLINES) drawHull(g, false);
    for (const g of strongGroups) if (groupCentres[g]) drawHull(g, true);
    const boxes = [];
    for (const g of strongGroups) if (groupCentres[g]) drawLabel(g, boxes, true);
    if (namesOn)
      for (const g of otherGroups) {
        if (g >= MAX_LABEL_GROUPS || boxes.length >= MAX_LABELS) break;
        if (!filterActive || groupMatches[g]) drawLabel(g, boxes, false);
      }
    for (const [i, lineWidth] of [[detailPoint, 3], [hoverPoint, 2]]) {
      if (i < 0) continue;
      overlayPen.beginPath();
      overlayPen.arc(screenX(data.x[i]), screenY(data.y[i]), pointRadius() + 4 * ratio, 0, 2 * Math.PI);
      overlayPen.strokeStyle = light ? "#111" : "#fff";
      overlayPen.lineWidth = lineWidth * ratio;
      overlayPen.stroke();
    }
  }

  /** Draw the name of an assembly where no other name is: a few lines lower, or not at all. */
  function drawLabel(g, boxes, strong) {
    const name = groups[g].name.length > 34 ? groups[g].name.slice(0, 33) + "…" : groups[g].name;
    overlayPen.font = `${strong ? 600 : 500} ${(strong ? 14 : 12.5) * ratio}px system-ui, "Segoe UI", "DejaVu Sans", sans-serif`;
    const w = overlayPen.measureText(name).width, h = 17 * ratio, m = margins();
    const x = screenX(groupCentres[g][0]);
    let y = screenY(groupCentres[g][1]);
    if (!strong && (x - w / 2 < m.left || x + w / 2 > width - m.right || y < m.top || y > height - m.bottom)) return;
    const overlaps = box => Math.abs(box.x - x) < (box.w + w) / 2 + 6 && Math.abs(box.y - y) < h;
    for (let attempts = 0; boxes.some(overlaps); attempts++) {
      if (attempts === (strong ? 8 : 2)) return;
      y += h;
    }
    boxes.push({ x, y, w });
    overlayPen.textAlign = "center";
    overlayPen.textBaseline = "middle";
    overlayPen.lineJoin = "round";
    overlayPen.lineWidth = 4 * ratio;
    overlayPen.strokeStyle = css(background, 0.85);
    overlayPen.strokeText(name, x, y);
    overlayPen.fillStyle = css(groupColours[g].map(c => light ? c * 0.8 : 255 - (255 - c) * 0.7));
    overlayPen.fillText(name, x, y);
  }

  // ---- the point under the pointer: a grid over the plane -----------------------------------------------------
  const CELLS = Math.max(1, Math.min(512, Math.ceil(Math.sqrt(n))));
  let minX = Infinity, maxX = -Infinity, minY = Infinity, maxY = -Infinity;
  for (let i = 0; i < n; i++) {
    minX = Math.min(minX, data.x[i]); maxX = Math.max(maxX, data.x[i]);
    minY = Math.min(minY, data.y[i]); maxY = Math.max(maxY, data.y[i]);
  }
  const cell = (value, min, max) => Math.max(0, Math.min(CELLS - 1, Math.floor((value - min) / (max - min || 1) * CELLS)));
  const column = x => cell(x, minX, maxX), row = y => cell(y, minY, maxY);
  const cellStarts = new Uint32Array(CELLS * CELLS + 1), cellPoints = new Uint32Array(n);
  { // a counting sort of the points by their cell
    const cells = Uint32Array.from({ length: n }, (_, i) => row(data.y[i]) * CELLS + column(data.x[i]));
    for (const c of cells) cellStarts[c + 1]++;
    for (let c = 0; c < CELLS * CELLS; c++) cellStarts[c + 1] += cellStarts[c];
    const next = cellStarts.slice();
    for (let i = 0; i < n; i++) cellPoints[next[cells[i]]++] = i;
  }

  /** The visible point nearest to a position of the screen, in CSS pixels; -1 if none is close. */
  function pointAt(clientX, clientY) {
    const x = (clientX * ratio - width / 2) / scale + centreX, y = centreY - (clientY * ratio - height / 2) / scale;
    const reach = (pointRadius() + 5 * ratio) / scale;
    let nearest = -1, minimum = reach * reach;
    for (let r = row(y - reach); r <= row(y + reach); r++)
      for (let k = cellStarts[r * CELLS + column(x - reach)]; k < cellStarts[r * CELLS + column(x + reach) + 1]; k++) {
        const i = cellPoints[k], distance = (data.x[i] - x) ** 2 + (data.y[i] - y) ** 2;
        if (visible[i] && distance <= minimum) { minimum = distance; nearest = i; }
      }
    return nearest;
  }

  // ---- tooltip and details ------------------------------------------------------------------------------------
  function showTooltip(i, clientX, clientY) {
    const box = $("tooltip");
    box.hidden = i < 0;
    if (i < 0) return;
    const names = groupsOf(i).slice(-2).map(g => groups[g].name), tags = tagsOf(i).slice(0, 5).map(tag => "#" + tag);
    box.replaceChildren(element("div", textOf(i)), element("div", [minute(data.created[i]), ...names, ...tags].join(" · ")));
    box.lastChild.className = "muted";
    const below = clientY + 18, above = Math.max(8, clientY - 12 - box.offsetHeight);
    box.style.left = Math.max(8, Math.min(clientX + 14, innerWidth - box.offsetWidth - 8)) + "px";
    box.style.top = (below + box.offsetHeight > innerHeight - 8 ? above : below) + "px";
  }

  /** Show the details of a point; hide them for -1. */
  function showDetails(i) {
    detailPoint = i;
    $("details").hidden = i < 0;
    if (i >= 0) {
      const close = button(() => { showDetails(-1); overlay.focus(); }, "×");
      close.className = "close";
      close.setAttribute("aria-label", "Close");
      const text = element("p", textOf(i)), fields = element("dl"), namespace = data.namespaces[data.namespaceIndexes[i]];
      text.className = "text";
      const add = (name, ...values) => values.length && fields.append(element("dt", name), element("dd", "", ...values));
      add("id", data.ids[i]);
      if (namespace) add("namespace", namespace);
      add("created", minute(data.created[i]) + " UTC");
      add("importance", String(Math.round(data.importance[i] * 1000) / 1000));
      add("tags", ...tagsOf(i).map(tag => button(() => { $("search").value = "#" + tag; applyFilter(); }, "#" + tag)));
      add("assemblies", ...groupsOf(i).map(g => button(() => selectGroups([g]), groups[g].name)));
      $("details").replaceChildren(close, text, fields);
    }
    requestDraw();
  }

  /** Show the details of the next visible memory in order of time, or of the previous one. */
  function step(direction) {
    if (!visibleCount) return;
    let k = detailPoint < 0 ? (direction > 0 ? -1 : 0) : byTime.indexOf(detailPoint);
    do k = (k + direction + n) % n; while (!visible[byTime[k]]);
    showDetails(byTime[k]);
    centreOn(byTime[k]);
  }

  // ---- assemblies ---------------------------------------------------------------------------------------------
  const LEGEND_ROWS = 300;

  function selectGroups(numbers) {
    groupSelection.clear();
    for (const g of numbers) groupSelection.add(g);
    for (const b of $("groups").querySelectorAll("button"))
      b.setAttribute("aria-pressed", String(groupSelection.has(+b.dataset.group)));
    applyFilter();
  }

  function toggleGroup(g) {
    selectGroups(groupSelection.has(g) ? [...groupSelection].filter(other => other !== g) : [...groupSelection, g]);
  }

  function legendRow(group, g) {
    const dot = element("i"), points = membersOf(g).length;
    dot.dataset.group = g;
    const size = points === group.size ? count(points) : `${count(points)} of ${count(group.size)}`;
    const node = button(() => toggleGroup(g), "", dot, element("span", group.name), element("small", size));
    node.dataset.group = g;
    node.title = [group.name, ...group.tags.map(tag => "#" + tag)].join(" ");
    node.setAttribute("aria-pressed", "false");
    node.onpointerenter = node.onfocus = () => { legendGroup = g; requestDraw(); };
    node.onpointerleave = node.onblur = () => { legendGroup = -1; requestDraw(); };
    return element("li", "", node);
  }

  function fillLegend() {
    $("legend").hidden = !groups.length;
    $("legendTitle").textContent = noun(groups.length, "assembly (a group of memories)", "assemblies (groups of memories)");
    $("groups").append(...groups.slice(0, LEGEND_ROWS).map(legendRow));
    const ungrouped = mainGroup.reduce((k, g) => k + (g < 0), 0);
    $("ungrouped").textContent = [
      ...(groups.length > LEGEND_ROWS ? [`The list has the ${LEGEND_ROWS} largest.`] : []),
      ...(ungrouped ? [`${noun(ungrouped, "memory is", "memories are")} in no assembly.`] : []),
    ].join(" ");
  }

  // ---- time ---------------------------------------------------------------------------------------------------
  const BARS = 120;

  function drawHistogram() {
    const bars = $("bars"), box = bars.getBoundingClientRect();
    if (!box.width) return;
    bars.width = box.width * ratio;
    bars.height = box.height * ratio;
    const totals = new Float64Array(BARS), matches = new Float64Array(BARS);
    for (let i = 0; i < n; i++) {
      const k = Math.min(BARS - 1, Math.floor((data.created[i] - firstTime) / (duration || 1) * BARS));
      totals[k]++;
      matches[k] += visible[i];
    }
    // The height is the square root of the count, so that one busy day does not flatten the rest.
    const peak = Math.sqrt(Math.max(...totals)) || 1, pen = bars.getContext("2d"), w = bars.width / BARS;
    for (const [counts, alpha] of [[totals, 0.25], [matches, 0.85]]) {
      pen.fillStyle = css(ungroupedColour, alpha);
      counts.forEach((value, k) => {
        const h = Math.sqrt(value) / peak * bars.height;
        pen.fillRect(k * w, bars.height - h, Math.max(1, w - ratio), h);
      });
    }
  }

  let playFrame = 0;

  function stop() {
    cancelAnimationFrame(playFrame);
    playFrame = 0;
    $("play").textContent = "Play";
  }

  function play() {
    const end = $("rangeEnd"), from = +end.value >= 1000 ? +$("rangeStart").value : +end.value, startTime = performance.now();
    $("play").textContent = "Stop";
    const tick = now => {
      end.value = Math.min(1000, from + (now - startTime) / 12);
      applyFilter();
      if (+end.value < 1000) playFrame = requestAnimationFrame(tick); else stop();
    };
    playFrame = requestAnimationFrame(tick);
  }

  // ---- pointer and keyboard -----------------------------------------------------------------------------------
  /** Zoom around a position of the screen; without one, around the middle of the area that no panel covers. */
  function zoom(factor, clientX, clientY) {
    const m = margins();
    const dx = clientX === undefined ? (m.left - m.right) / 2 : clientX * ratio - width / 2;
    const dy = clientY === undefined ? (m.top - m.bottom) / 2 : clientY * ratio - height / 2;
    const newScale = Math.max(fitScale / 4, Math.min(fitScale * 4000, scale * factor));
    centreX += dx / scale - dx / newScale;
    centreY -= dy / scale - dy / newScale;
    scale = newScale;
    requestDraw();
  }

  function pan(dx, dy) {
    centreX -= dx * ratio / scale;
    centreY += dy * ratio / scale;
    requestDraw();
  }

  function hover(i) {
    if (i !== hoverPoint) { hoverPoint = i; requestDraw(); }
  }

  const pointers = new Map(); // of each pressed pointer its last position
  let dragDistance = 0;
  overlay.onpointerdown = e => {
    overlay.setPointerCapture(e.pointerId);
    pointers.set(e.pointerId, [e.clientX, e.clientY]);
    dragDistance = 0;
  };
  overlay.onpointermove = e => {
    const last = pointers.get(e.pointerId), x = e.clientX, y = e.clientY;
    if (!last) {
      hover(pointAt(x, y));
      showTooltip(hoverPoint, x, y);
      return;
    }
    const other = [...pointers].find(([id]) => id !== e.pointerId);
    if (other) {
      const [ox, oy] = other[1];
      zoom(Math.hypot(x - ox, y - oy) / (Math.hypot(last[0] - ox, last[1] - oy) || 1), (x + ox) / 2, (y + oy) / 2);
    } else {
      pan(x - last[0], y - last[1]);
    }
    dragDistance += Math.hypot(x - last[0], y - last[1]);
    pointers.set(e.pointerId, [x, y]);
    showTooltip(-1);
  };
  overlay.onpointerup = overlay.onpointercancel = e => {
    const click = pointers.delete(e.pointerId) && dragDistance < 5 && e.type === "pointerup";
    if (click) showDetails(pointAt(e.clientX, e.clientY));
  };
  overlay.onpointerleave = () => { hover(-1); showTooltip(-1); };
  overlay.addEventListener("wheel", e => {
    e.preventDefault();
    zoom(Math.exp(-e.deltaY * (e.deltaMode ? 0.05 : 0.0016)), e.clientX, e.clientY);
  }, { passive: false });
  overlay.ondblclick = e => zoom(2, e.clientX, e.clientY);

  const PAN = 60; // CSS pixels a key press
  const KEYS = {
    ArrowLeft: () => pan(PAN, 0), ArrowRight: () => pan(-PAN, 0), ArrowUp: () => pan(0, PAN), ArrowDown: () => pan(0, -PAN),
    "+": () => zoom(1.4), "=": () => zoom(1.4), "-": () => zoom(1 / 1.4), "0": showAll, n: () => step(1), p: () => step(-1),
  };
  addEventListener("keydown", e => {
    if (e.ctrlKey || e.metaKey || e.altKey) return;
    const typing = e.target.tagName === "INPUT";
    if (e.key === "Escape") {
      if (detailPoint >= 0) showDetails(-1); else { $("search").value = ""; selectGroups([]); }
      overlay.focus();
    } else if (e.key === "/" && !typing) {
      e.preventDefault();
      $("panel").hidden = false;
      $("search").focus();
    } else if (!typing && KEYS[e.key]) {
      e.preventDefault();
      KEYS[e.key]();
    }
  });

  let searchTimer = 0;
  $("search").oninput = () => { clearTimeout(searchTimer); searchTimer = setTimeout(applyFilter, n > 20000 ? 120 : 0); };
  $("rangeStart").oninput = e => { e.target.value = Math.min(+e.target.value, +$("rangeEnd").value); applyFilter(); };
  $("rangeEnd").oninput = e => { e.target.value = Math.max(+e.target.value, +$("rangeStart").value); applyFilter(); };
  $("play").onclick = () => playFrame ? stop() : play();
  $("theme").onclick = () => { light = !light; applyTheme(); };
  const toggle = (id, get, set) => {
    $(id).setAttribute("aria-pressed", String(get()));
    $(id).onclick = () => { set(!get()); $(id).setAttribute("aria-pressed", String(get())); requestDraw(); };
  };
  toggle("names", () => namesOn, value => { namesOn = value; });
  toggle("outlines", () => outlinesOn, value => { outlinesOn = value; });
  $("togglePanel").onclick = () => {
    $("panel").hidden = !$("panel").hidden;
    $("togglePanel").setAttribute("aria-expanded", String(!$("panel").hidden));
    showAll();
  };
  addEventListener("resize", resize);

  // ---- start --------------------------------------------------------------------------------------------------
  $("title").textContent = data.title;
  const omittedCount = data.memories - data.withoutEmbedding - n;
  $("facts").textContent = [
    noun(data.memories, "memory", "memories"),
    ...(data.withoutEmbedding ? [`${count(data.withoutEmbedding)} without a vector, not on the map`] : []),
    ...(omittedCount > 0 ? [`a sample of ${count(n)} on the map`] : []),
  ].join(" · ");
  $("about").textContent = "Close points often have similar vectors. The map is a projection to two dimensions "
    + `that keeps ${(data.variance * 100).toFixed(data.variance < 0.1 ? 1 : 0)} % of the variance (metric: ${data.metric}). `
    + `Texts are cut to ${count(data.textLimit)} characters.`;
  $("about").hidden = n < 2;
  const tagCounts = new Uint32Array(data.tags.length);
  for (const t of data.tagIndexes) tagCounts[t]++;
  const frequentTags = Array.from(tagCounts.keys()).sort((a, b) => tagCounts[b] - tagCounts[a]).slice(0, 200);
  $("tags").append(...frequentTags.map(t => { const option = element("option"); option.value = "#" + data.tags[t]; return option; }));
  $("timeline").hidden = !(lastTime > firstTime);
  $("message").hidden = n > 0;
  $("message").textContent = data.memories ? "No memory in this store has a vector, so the map is empty." : "This store is empty.";
  for (const id of ["searchBox", "legend", "help", "outlines", "names"]) $(id).hidden = !n;
  if (n) fillLegend();
  resize();
  applyTheme();
  applyFilter();
  document.documentElement.dataset.ready = "true";
})().catch(error => {
  const message = document.getElementById("message");
  message.hidden = false;
  message.textContent = `Cannot draw this page. It needs a browser released in 2023 or later, and a complete file. (${error})`;
  throw error;
});
