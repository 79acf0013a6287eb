
"use strict";
(async () => {
  const $ = id => document.getElementById(id);

  // ---- the data -----------------------------------------------------------------------------------------------
  async function unpacked() {
    const text = $("data").textContent;
    const packed = Uint8Array.from(atob(text), c => c.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const bytes = await new Response(stream).arrayBuffer();
    $("data").textContent = "";
    const size = new DataView(bytes).getUint32(0, true);
    const head = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 4, size)));
    const start = Math.ceil((4 + size) / 8) * 8;
    const kinds = { f4: Float32Array, f8: Float64Array, u4: Uint32Array };
    for (const [name, kind, offset, length] of head.arrays)
      head[name] = new kinds[kind](bytes, start + offset, length);
    return head;
  }

  const data = await unpacked();
  const n = data.x.length;
  const groups = data.groups;
  const count = k => k.toLocaleString("en");
  const noun = (k, one, many) => `${count(k)} ${k === 1 ? one : many}`;
  const tagsOf = i => Array.from(data.tag.subarray(i ? data.tagEnd[i - 1] : 0, data.tagEnd[i]), t => data.tags[t]);
  const membersOf = g => data.member.subarray(g ? data.memberEnd[g - 1] : 0, data.memberEnd[g]);
  const day = s => { const d = new Date(s * 1000); return isNaN(d) ? "?" : d.toISOString().slice(0, 10); };
  const minute = s => { const d = new Date(s * 1000); return isNaN(d) ? "?" : d.toISOString().slice(0, 16).replace("T", " "); };

  // A point has the colour of the smallest of its assemblies: the one that says most about it.
  const home = new Int32Array(n).fill(-1);
  const groupsOf = new Map();
  for (let g = 0; g < groups.length; g++) // the largest first
    for (const i of membersOf(g)) {
      home[i] = g;
      const of = groupsOf.get(i);
      if (of) of.push(g); else groupsOf.set(i, [g]);
    }

  // ---- colours ------------------------------------------------------------------------------------------------
  const DARK = ["#5aa9ff", "#ffb02e", "#45d08e", "#ff6b9a", "#a98bff", "#35d0d0", "#e5d33a", "#ff8a66", "#a3d34b", "#d79bff"];
  const LIGHT = ["#1f6fd1", "#c77700", "#1e8f55", "#c73668", "#6b46c9", "#0f8a8a", "#8c7a00", "#cf4520", "#5c8a14", "#9447d1"];
  let light = matchMedia("(prefers-color-scheme: light)").matches;
  let colours = [], loose = [], ground = [];

  function rgb(text) {
    if (text[0] === "#") return [1, 3, 5].map(k => parseInt(text.slice(k, k + 2), 16));
    const [h, s, l] = text.match(/[\d.]+/g).map(Number), a = s / 100 * Math.min(l, 100 - l) / 100;
    return [0, 8, 4].map(k => Math.round(255 * (l / 100 - a * Math.max(-1, Math.min((k + h / 30) % 12 - 3, 9 - (k + h / 30) % 12, 1)))));
  }

  function paint() {
    document.documentElement.classList.toggle("light", light);
    $("theme").textContent = light ? "dark" : "light";
    const base = light ? LIGHT : DARK;
    // Beyond the first ten, hues a golden angle apart, so that neighbours in the list differ.
    colours = groups.map((_, g) => rgb(base[g] || `hsl(${(g * 137.508) % 360} 62% ${light ? 42 : 66}%)`));
    loose = rgb(light ? "#6d7788" : "#8d99ad");
    ground = rgb(light ? "#fbfbf8" : "#0e1116");
    for (const dot of document.querySelectorAll("i[data-group]")) dot.style.background = css(colours[dot.dataset.group]);
    draw();
    drawBars();
  }
  const css = (c, a = 1) => `rgba(${c[0]},${c[1]},${c[2]},${a})`;

  // ---- what is shown ------------------------------------------------------------------------------------------
  const shown = new Uint8Array(n).fill(1);
  const tint = home.slice(), matches = new Uint32Array(groups.length);
  let shownCount = n, chosen = new Set(), hay = null, narrowed = false;
  let first = Infinity, last = -Infinity;
  for (const t of data.created) { first = Math.min(first, t); last = Math.max(last, t); }
  const byTime = Uint32Array.from({ length: n }, (_, i) => i).sort((a, b) => data.created[a] - data.created[b] || a - b);
  const timeAt = value => first + (last - first) * value / 1000;

  function filter() {
    const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const plain = words.filter(w => w[0] !== "#" || w.length === 1);
    const tags = words.filter(w => w[0] === "#" && w.length > 1)
      .map(w => new Set(data.tags.flatMap((t, k) => t.toLowerCase().startsWith(w.slice(1)) ? [k] : [])));
    if (plain.length && !hay)
      hay = data.texts.map((t, i) => `${t}\n${data.ids[i]}\n${tagsOf(i).join("\n")}`.toLowerCase());
    const low = timeAt(+$("low").value), high = timeAt(+$("high").value);
    const all = +$("low").value === 0 && +$("high").value === 1000;
    let member = null;
    if (chosen.size) {
      member = new Uint8Array(n);
      for (const g of chosen) for (const i of membersOf(g)) member[i] = 1;
    }
    shownCount = 0;
    tint.set(home);
    for (const g of chosen) for (const i of membersOf(g)) tint[i] = g; // what was asked for shows in its own colour
    for (let i = 0; i < n; i++) {
      let ok = (all || data.created[i] >= low && data.created[i] <= high) && (!member || member[i])
        && plain.every(w => hay[i].includes(w));
      for (let t = 0; ok && t < tags.length; t++) {
        ok = false;
        for (let k = i ? data.tagEnd[i - 1] : 0; k < data.tagEnd[i]; k++) if (tags[t].has(data.tag[k])) { ok = true; break; }
      }
      shown[i] = ok ? 1 : 0;
      shownCount += shown[i];
    }
    narrowed = words.length > 0 || chosen.size > 0 || !all;
    for (let g = 0; g < groups.length; g++) matches[g] = membersOf(g).reduce((k, i) => k + shown[i], 0);
    $("status").textContent = narrowed ? `${count(shownCount)} of ${noun(n, "memory", "memories")} match` : "";
    const when = last - first < 2 * 86400 ? minute : day;
    $("from").textContent = when(low);
    $("to").textContent = when(high);
    list(words.length || chosen.size);
    draw();
    drawBars();
  }

  function list(asked) {
    const rows = [];
    for (let k = n - 1; asked && k >= 0 && rows.length < 50; k--) if (shown[byTime[k]]) rows.push(row(byTime[k]));
    $("found").replaceChildren(...rows);
  }

  function row(i) {
    const button = make("button", "", make("i"), make("span", data.texts[i] || data.ids[i]));
    button.type = "button";
    button.firstChild.style.background = css(colourOf(i));
    button.onclick = () => { select(i); centre(i); };
    return make("li", "", button);
  }

  function make(name, text = "", ...children) {
    const made = document.createElement(name);
    if (text) made.textContent = text;
    made.append(...children);
    return made;
  }
  const colourOf = i => tint[i] < 0 ? loose : colours[tint[i]];

  // ---- the view -----------------------------------------------------------------------------------------------
  const canvas = $("points"), over = $("over");
  const pen = canvas.getContext("2d", { alpha: false }), top = over.getContext("2d");
  let W = 1, H = 1, ratio = 1, scale = 1, fitted = 1, cx = 0, cy = 0, image = null;
  let hover = -1, selected = -1, lit = -1, named = true, outlined = groups.length > 0 && groups.length <= 6;

  const sx = i => (data.x[i] - cx) * scale + W / 2;
  const sy = i => (cy - data.y[i]) * scale + H / 2;

  function room() { // what panels leave free, in device pixels
    const side = $("side").hidden ? null : $("side").getBoundingClientRect(), wide = innerWidth > 640;
    return {
      left: (side && wide ? side.right + 12 : 12) * ratio,
      right: 12 * ratio,
      top: (side && !wide ? side.bottom + 12 : 48) * ratio,
      bottom: ($("times").hidden ? 12 : 80) * ratio,
    };
  }

  function extent(values) {
    const sorted = Float32Array.from(values).sort();
    const cut = n > 1000 ? Math.floor(n * 0.001) : 0; // a few far off must not make a speck of all others
    return [sorted[cut], sorted[n - 1 - cut]];
  }

  function fit() {
    const r = room();
    const w = Math.max(60, W - r.left - r.right), h = Math.max(60, H - r.top - r.bottom);
    const [x0, x1] = n ? extent(data.x) : [0, 0], [y0, y1] = n ? extent(data.y) : [0, 0];
    scale = fitted = 0.94 * Math.min(w / (x1 - x0 || 1e-9), h / (y1 - y0 || 1e-9), 1e9);
    if (x1 === x0 && y1 === y0) scale = fitted = Math.min(w, h);
    cx = (x0 + x1) / 2 - (r.left - r.right) / 2 / scale;
    cy = (y0 + y1) / 2 - (r.bottom - r.top) / 2 / scale;
    draw();
  }

  function centre(i) {
    const r = room();
    cx = data.x[i] - (r.left - r.right) / 2 / scale;
    cy = data.y[i] - (r.bottom - r.top) / 2 / scale;
    draw();
  }

  function resize() {
    ratio = Math.min(2, devicePixelRatio || 1);
    W = Math.max(1, Math.round(innerWidth * ratio));
    H = Math.max(1, Math.round(innerHeight * ratio));
    for (const c of [canvas, over]) { c.width = W; c.height = H; }
    image = pen.createImageData(W, H);
    fit();
    drawBars();
  }

  // ---- drawing ------------------------------------------------------------------------------------------------
  let asked = false;
  function draw() {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => { asked = false; drawPoints(); drawOver(); });
  }

  function radius() {
    const base = n <= 300 ? 5 : n <= 3000 ? 4 : n <= 20000 ? 2.6 : 1.5;
    return Math.min(6.5, base * Math.max(1, scale / fitted) ** 0.3) * ratio;
  }

  /** The pixels of a disc, as steps in the image and coverage, 0 to 256. */
  function disc(r, alpha) {
    const steps = [], cover = [], reach = Math.ceil(r + 0.5);
    for (let dy = -reach; dy <= reach; dy++)
      for (let dx = -reach; dx <= reach; dx++) {
        const c = Math.max(0, Math.min(1, r + 0.5 - Math.hypot(dx, dy)));
        if (c > 0.02) { steps.push((dy * W + dx) * 4); cover.push(Math.round(256 * c * alpha)); }
      }
    return { steps: Int32Array.from(steps), cover: Int32Array.from(cover), reach };
  }

  // Pixels are blended here, not by the canvas: 100,000 discs take it ten times as long.
  function drawPoints() {
    const pixels = image.data, whole = new Uint32Array(pixels.buffer);
    const probe = new Uint8Array([...ground, 255]);
    whole.fill(new Uint32Array(probe.buffer)[0]);
    const r = radius(), near = Math.max(1, scale / fitted);
    const alpha = Math.min(0.95, (n <= 3000 ? 0.85 : n <= 20000 ? 0.6 : 0.42) * near ** 0.25);
    const full = disc(r, shownCount < n / 4 ? Math.max(alpha, 0.8) : alpha);
    const faint = disc(Math.max(1, r * 0.7), light ? 0.13 : 0.16);
    for (let pass = 0; pass < 3; pass++) { // what does not match, what is in no assembly, what is in one
      const { steps, cover, reach } = pass ? full : faint;
      for (let i = 0; i < n; i++) {
        if (pass === 0 ? shown[i] : !shown[i] || (tint[i] < 0) !== (pass === 1)) continue;
        const x = Math.round(sx(i)), y = Math.round(sy(i));
        if (!(x >= reach && y >= reach && x < W - reach && y < H - reach)) continue;
        const [red, green, blue] = pass === 0 ? loose : colourOf(i);
        const at = (y * W + x) * 4;
        for (let k = 0; k < steps.length; k++) {
          const p = at + steps[k], c = cover[k];
          pixels[p] += ((red - pixels[p]) * c) >> 8;
          pixels[p + 1] += ((green - pixels[p + 1]) * c) >> 8;
          pixels[p + 2] += ((blue - pixels[p + 2]) * c) >> 8;
        }
      }
    }
    pen.putImageData(image, 0, 0);
  }

  const middles = groups.map((_, g) => {
    const of = membersOf(g);
    if (!of.length) return null;
    const mid = values => Float32Array.from(of, i => values[i]).sort()[of.length >> 1];
    return [mid(data.x), mid(data.y)];
  });
  const hulls = new Map();

  /** The convex outline of an assembly, without the tenth of its members that lies farthest out. */
  function hull(g) {
    if (hulls.has(g)) return hulls.get(g);
    const [mx, my] = middles[g];
    let of = Array.from(membersOf(g), i => [data.x[i], data.y[i]]);
    of.sort((a, b) => Math.hypot(a[0] - mx, a[1] - my) - Math.hypot(b[0] - mx, b[1] - my));
    if (of.length >= 10) of = of.slice(0, Math.ceil(of.length * 0.9));
    of.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
    const half = list => {
      const made = [];
      for (const p of list) {
        while (made.length > 1) {
          const [a, b] = made.slice(-2);
          if ((b[0] - a[0]) * (p[1] - a[1]) - (b[1] - a[1]) * (p[0] - a[0]) > 0) break;
          made.pop();
        }
        made.push(p);
      }
      return made.slice(0, -1);
    };
    const made = of.length < 2 ? of : [...half(of), ...half(of.reverse())];
    hulls.set(g, made);
    return made;
  }

  function drawHull(g, strong) {
    const path = hull(g).map(([x, y]) => [(x - cx) * scale + W / 2, (cy - y) * scale + H / 2]);
    top.beginPath();
    path.forEach(([x, y], k) => k ? top.lineTo(x, y) : top.moveTo(x, y));
    top.closePath();
    top.lineJoin = "round";
    top.strokeStyle = css(colours[g], strong ? 0.9 : 0.35);
    top.lineWidth = (strong ? 2 : 1.2) * ratio;
    top.fillStyle = css(colours[g], strong ? 0.1 : 0.04);
    top.fill();
    top.stroke();
  }

  function drawOver() {
    top.clearRect(0, 0, W, H);
    const strong = new Set(chosen);
    if (lit >= 0) strong.add(lit);
    for (const i of [hover, selected]) if (i >= 0 && home[i] >= 0) strong.add(home[i]);
    if (outlined && !chosen.size) for (let g = 0; g < Math.min(40, groups.length); g++) if (middles[g] && !strong.has(g)) drawHull(g, false);
    for (const g of strong) if (middles[g]) drawHull(g, true);
    const taken = [];
    for (const g of strong) label(g, taken, true);
    if (named && !chosen.size) for (let g = 0; g < Math.min(120, groups.length) && taken.length < 36; g++) if (!strong.has(g) && !(narrowed && !matches[g])) label(g, taken, false);
    for (const [i, wide] of [[selected, 3], [hover, 2]]) {
      if (i < 0) continue;
      top.beginPath();
      top.arc(sx(i), sy(i), radius() + 4 * ratio, 0, 7);
      top.strokeStyle = light ? "#111" : "#fff";
      top.lineWidth = wide * ratio;
      top.stroke();
    }
  }

  function label(g, taken, strong) {
    if (!middles[g]) return;
    const name = groups[g].name.length > 34 ? groups[g].name.slice(0, 33) + "…" : groups[g].name;
    top.font = `${strong ? 600 : 500} ${(strong ? 14 : 12.5) * ratio}px system-ui, "Segoe UI", "DejaVu Sans", sans-serif`;
    const w = top.measureText(name).width, h = 17 * ratio, r = room();
    let x = (middles[g][0] - cx) * scale + W / 2, y = (cy - middles[g][1]) * scale + H / 2;
    if (!strong && (x - w / 2 < r.left || x + w / 2 > W - r.right || y < r.top || y > H - r.bottom)) return;
    for (let tries = 0; taken.some(t => Math.abs(t[0] - x) < (t[2] + w) / 2 + 6 && Math.abs(t[1] - y) < h); tries++) {
      if (tries === (strong ? 8 : 2)) return;
      y += h;
    }
    taken.push([x, y, w]);
    top.textAlign = "center";
    top.textBaseline = "middle";
    top.lineJoin = "round";
    top.lineWidth = 4 * ratio;
    top.strokeStyle = css(ground, 0.85);
    top.strokeText(name, x, y);
    top.fillStyle = css(colours[g].map(c => light ? c * 0.8 : 255 - (255 - c) * 0.7));
    top.fillText(name, x, y);
  }

  // ---- what lies under the pointer: a grid over the plane -----------------------------------------------------
  const CELLS = Math.max(1, Math.min(512, Math.ceil(Math.sqrt(n))));
  let x0 = Infinity, x1 = -Infinity, y0 = Infinity, y1 = -Infinity;
  for (let i = 0; i < n; i++) {
    x0 = Math.min(x0, data.x[i]); x1 = Math.max(x1, data.x[i]);
    y0 = Math.min(y0, data.y[i]); y1 = Math.max(y1, data.y[i]);
  }
  const cell = (v, from, to) => Math.max(0, Math.min(CELLS - 1, Math.floor((v - from) / (to - from || 1) * CELLS)));
  const ends = new Uint32Array(CELLS * CELLS + 1), inside = new Uint32Array(n);
  {
    const of = Uint32Array.from({ length: n }, (_, i) => cell(data.y[i], y0, y1) * CELLS + cell(data.x[i], x0, x1));
    for (const c of of) ends[c + 1]++;
    for (let c = 0; c < CELLS * CELLS; c++) ends[c + 1] += ends[c];
    const next = ends.slice();
    for (let i = 0; i < n; i++) inside[next[of[i]]++] = i;
  }

  function under(px, py) {
    const x = (px * ratio - W / 2) / scale + cx, y = cy - (py * ratio - H / 2) / scale;
    const reach = (radius() + 5 * ratio) / scale;
    let best = -1, nearest = reach * reach;
    for (let v = cell(y - reach, y0, y1); v <= cell(y + reach, y0, y1); v++)
      for (let k = ends[v * CELLS + cell(x - reach, x0, x1)]; k < ends[v * CELLS + cell(x + reach, x0, x1) + 1]; k++) {
        const i = inside[k], d = (data.x[i] - x) ** 2 + (data.y[i] - y) ** 2;
        if (shown[i] && d <= nearest) { nearest = d; best = i; }
      }
    return best;
  }

  // ---- text beside the points ---------------------------------------------------------------------------------
  function tip(i, px, py) {
    const box = $("tip");
    box.hidden = i < 0;
    if (i < 0) return;
    const small = [minute(data.created[i]), ...(groupsOf.get(i) || []).slice(-2).map(g => groups[g].name), ...tagsOf(i).slice(0, 5).map(t => "#" + t)];
    box.replaceChildren(make("div", data.texts[i] || "(no text)"), make("div", small.join(" · ")));
    box.lastChild.className = "soft";
    box.style.left = Math.max(8, Math.min(px + 14, innerWidth - box.offsetWidth - 8)) + "px";
    box.style.top = (py + 18 + box.offsetHeight > innerHeight - 8 ? Math.max(8, py - 12 - box.offsetHeight) : py + 18) + "px";
  }

  function select(i) {
    selected = i;
    const card = $("card");
    card.hidden = i < 0;
    if (i >= 0) {
      const close = make("button", "×");
      close.className = "close";
      close.type = "button";
      close.setAttribute("aria-label", "Close");
      close.onclick = () => { select(-1); over.focus(); };
      const text = make("p", data.texts[i] || "(no text)"), facts = make("dl");
      text.className = "text";
      const fact = (name, ...values) => values.length && facts.append(make("dt", name), make("dd", "", ...values));
      const press = (label, act) => { const b = make("button", label); b.type = "button"; b.onclick = act; return b; };
      fact("id", data.ids[i]);
      if (data.spaces[data.space[i]]) fact("namespace", data.spaces[data.space[i]]);
      fact("created", minute(data.created[i]) + " UTC");
      fact("importance", String(Math.round(data.importance[i] * 1000) / 1000));
      fact("tags", ...tagsOf(i).map(t => press("#" + t, () => { $("search").value = "#" + t; filter(); })));
      fact("in", ...(groupsOf.get(i) || []).map(g => press(groups[g].name, () => choose(g, true))));
      card.replaceChildren(close, text, facts);
    }
    draw();
  }

  function step(by) {
    if (!shownCount) return;
    let k = selected < 0 ? (by > 0 ? -1 : 0) : byTime.indexOf(selected);
    do k = (k + by + n) % n; while (!shown[byTime[k]]);
    select(byTime[k]);
    centre(byTime[k]);
  }

  // ---- assemblies ---------------------------------------------------------------------------------------------
  const LISTED = 300;
  function choose(g, only) {
    if (only) chosen = new Set([g]);
    else if (!chosen.delete(g)) chosen.add(g);
    for (const b of $("groups").querySelectorAll("button")) b.setAttribute("aria-pressed", String(chosen.has(+b.dataset.group)));
    filter();
  }

  function legend() {
    $("legend").hidden = !groups.length;
    $("legendHead").textContent = noun(groups.length, "assembly", "assemblies");
    $("groups").append(...groups.slice(0, LISTED).map((group, g) => {
      const dot = make("i"), drawn = membersOf(g).length;
      dot.dataset.group = g;
      const button = make("button", "", dot, make("span", group.name), make("small", drawn === group.size ? count(drawn) : `${count(drawn)} of ${count(group.size)}`));
      button.type = "button";
      button.dataset.group = g;
      button.title = [group.name, ...group.tags.map(t => "#" + t)].join(" ");
      button.setAttribute("aria-pressed", "false");
      button.onclick = () => choose(g, false);
      button.onpointerenter = button.onfocus = () => { lit = g; draw(); };
      button.onpointerleave = button.onblur = () => { lit = -1; draw(); };
      return make("li", "", button);
    }));
    const alone = home.reduce((k, g) => k + (g < 0), 0);
    const more = groups.length > LISTED ? `the ${LISTED} largest are listed. ` : "";
    $("loose").textContent = more + (alone ? `${noun(alone, "memory is", "memories are")} in none` : "");
  }

  // ---- time ---------------------------------------------------------------------------------------------------
  const BARS = 120;
  function drawBars() {
    const c = $("bars"), box = c.getBoundingClientRect();
    if (!box.width) return;
    c.width = box.width * ratio;
    c.height = box.height * ratio;
    const all = new Float64Array(BARS), some = new Float64Array(BARS);
    for (let i = 0; i < n; i++) {
      const k = Math.min(BARS - 1, Math.floor((data.created[i] - first) / (last - first || 1) * BARS));
      all[k]++;
      some[k] += shown[i];
    }
    // Square roots, so that one busy day does not flatten the rest.
    const most = Math.sqrt(Math.max(...all)) || 1, p = c.getContext("2d"), w = c.width / BARS;
    for (const [bars, alpha] of [[all, 0.25], [some, 0.85]]) {
      p.fillStyle = css(loose, alpha);
      bars.forEach((v, k) => { const h = Math.sqrt(v) / most * c.height; p.fillRect(k * w, c.height - h, Math.max(1, w - ratio), h); });
    }
  }

  let playing = 0;
  function play() {
    if (playing) { cancelAnimationFrame(playing); playing = 0; $("play").textContent = "play"; return; }
    const from = +$("high").value >= 1000 ? +$("low").value : +$("high").value, began = performance.now();
    $("play").textContent = "stop";
    const tick = at => {
      const value = Math.min(1000, from + (at - began) / 12);
      $("high").value = value;
      filter();
      if (value < 1000) playing = requestAnimationFrame(tick); else { playing = 1; play(); }
    };
    playing = requestAnimationFrame(tick);
  }

  // ---- hands --------------------------------------------------------------------------------------------------
  function zoom(by, px, py) {
    const r = room(); // without a place, about the middle of what panels leave free
    const dx = px === undefined ? (r.left - r.right) / 2 : px * ratio - W / 2;
    const dy = py === undefined ? (r.top - r.bottom) / 2 : py * ratio - H / 2;
    const to = Math.max(fitted / 4, Math.min(fitted * 4000, scale * by));
    cx += dx / scale - dx / to;
    cy -= dy / scale - dy / to;
    scale = to;
    draw();
  }

  const fingers = new Map();
  let moved = 0;
  over.onpointerdown = e => { over.setPointerCapture(e.pointerId); fingers.set(e.pointerId, [e.clientX, e.clientY]); moved = 0; };
  over.onpointermove = e => {
    const before = fingers.get(e.pointerId);
    if (!before) {
      const i = under(e.clientX, e.clientY);
      if (i !== hover) { hover = i; draw(); }
      tip(i, e.clientX, e.clientY);
      return;
    }
    const other = [...fingers].find(([id]) => id !== e.pointerId);
    if (other) {
      const [, [ox, oy]] = other;
      zoom(Math.hypot(e.clientX - ox, e.clientY - oy) / (Math.hypot(before[0] - ox, before[1] - oy) || 1), (e.clientX + ox) / 2, (e.clientY + oy) / 2);
    } else {
      cx -= (e.clientX - before[0]) * ratio / scale;
      cy += (e.clientY - before[1]) * ratio / scale;
      draw();
    }
    moved += Math.hypot(e.clientX - before[0], e.clientY - before[1]);
    fingers.set(e.pointerId, [e.clientX, e.clientY]);
    tip(-1);
  };
  over.onpointerup = over.onpointercancel = e => {
    if (fingers.delete(e.pointerId) && moved < 5 && e.type === "pointerup") select(under(e.clientX, e.clientY));
  };
  over.onpointerleave = () => { hover = -1; tip(-1); draw(); };
  over.addEventListener("wheel", e => { e.preventDefault(); zoom(Math.exp(-e.deltaY * (e.deltaMode ? 0.05 : 0.0016)), e.clientX, e.clientY); }, { passive: false });
  over.ondblclick = e => zoom(2, e.clientX, e.clientY);

  const far = 60;
  const KEYS = {
    ArrowLeft: () => { cx -= far * ratio / scale; draw(); }, ArrowRight: () => { cx += far * ratio / scale; draw(); },
    ArrowUp: () => { cy += far * ratio / scale; draw(); }, ArrowDown: () => { cy -= far * ratio / scale; draw(); },
    "+": () => zoom(1.4), "=": () => zoom(1.4), "-": () => zoom(1 / 1.4), "0": fit, n: () => step(1), p: () => step(-1),
  };
  addEventListener("keydown", e => {
    if (e.ctrlKey || e.metaKey || e.altKey) return;
    const typing = e.target.tagName === "INPUT";
    if (e.key === "Escape") {
      if (selected >= 0) select(-1);
      else { $("search").value = ""; chosen.clear(); for (const b of $("groups").querySelectorAll("button")) b.setAttribute("aria-pressed", "false"); filter(); }
      over.focus();
    } else if (e.key === "/" && !typing) { e.preventDefault(); $("side").hidden = false; $("search").focus(); }
    else if (!typing && KEYS[e.key]) { e.preventDefault(); KEYS[e.key](); }
  });

  let waiting = 0;
  $("search").oninput = () => { clearTimeout(waiting); waiting = setTimeout(filter, n > 20000 ? 120 : 0); };
  $("low").oninput = () => { if (+$("low").value > +$("high").value) $("low").value = $("high").value; filter(); };
  $("high").oninput = () => { if (+$("high").value < +$("low").value) $("high").value = $("low").value; filter(); };
  $("play").onclick = play;
  $("theme").onclick = () => { light = !light; paint(); };
  const toggle = (id, get, set) => {
    $(id).setAttribute("aria-pressed", String(get()));
    $(id).onclick = () => { set(!get()); $(id).setAttribute("aria-pressed", String(get())); draw(); };
  };
  toggle("names", () => named, v => { named = v; });
  toggle("outlines", () => outlined, v => { outlined = v; });
  $("fold").onclick = () => { $("side").hidden = !$("side").hidden; $("fold").setAttribute("aria-expanded", String(!$("side").hidden)); fit(); };
  addEventListener("resize", resize);

  // ---- the first look -----------------------------------------------------------------------------------------
  $("title").textContent = data.title;
  const capped = data.memories - data.without - n;
  $("facts").textContent = [
    noun(data.memories, "memory", "memories"),
    ...(data.without ? [`${count(data.without)} without a vector ${data.without === 1 ? "is" : "are"} not on the map`] : []),
    ...(capped > 0 ? [`a sample of ${count(n)} is drawn, the same each time`] : []),
  ].join(" · ");
  $("fine").textContent = `Near means alike: a plane through ${data.metric} space that shows ${(data.variance * 100).toFixed(data.variance < 0.1 ? 1 : 0)} % of the variance. `
    + `Texts are cut at ${count(data.textLimit)} characters.`;
  $("fine").hidden = n < 2;
  const tagCounts = new Uint32Array(data.tags.length);
  for (const t of data.tag) tagCounts[t]++;
  const common = Array.from(tagCounts.keys()).sort((a, b) => tagCounts[b] - tagCounts[a]).slice(0, 200);
  $("tags").append(...common.map(t => { const o = make("option"); o.value = "#" + data.tags[t]; return o; }));
  $("times").hidden = !(last > first);
  $("empty").hidden = n > 0;
  $("empty").textContent = data.memories ? "No memory in this store has a vector, so there is no map to draw." : "This store is empty.";
  for (const id of ["asking", "legend", "keys", "outlines", "names"]) $(id).hidden = !n;
  if (n) legend();
  resize();
  paint();
  filter();
  document.documentElement.dataset.ready = "true";
})().catch(error => {
  const said = document.getElementById("empty");
  said.hidden = false;
  said.textContent = `This page could not be drawn; it needs a browser of 2023 or later. (${error})`;
  throw error;
});
