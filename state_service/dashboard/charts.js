// The drawings, by uPlot. Colours come from the style sheet, so that both themes are its business.

import * as format from "./format.js";

const LONG_AGO_SECONDS = 300;
const LEAST_SECONDS = 60;
const GAP_SECONDS = 5;

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

function clock(seconds) {
  return format.clock(new Date(seconds * 1000));
}

/** Redraw a chart as wide as its element, whenever that changes. */
function fit(chart, element) {
  new ResizeObserver(() => {
    const { clientWidth: width, clientHeight: height } = element;
    if (width && height && (width !== chart.width || height !== chart.height)) {
      chart.setSize({ width, height });
    }
  }).observe(element);
}

/** A small line of one figure over the last minutes. */
export class Spark {
  constructor(element, describe) {
    this.element = element;
    this.describe = describe;
    this.name = element.getAttribute("aria-label");
    this.times = [];
    this.values = [];
    if (!globalThis.uPlot) return; // the numbers are there without it
    this.chart = new uPlot(
      {
        width: element.clientWidth || 200,
        height: element.clientHeight || 56,
        padding: [4, 0, 0, 0],
        cursor: { show: false },
        legend: { show: false },
        axes: [{ show: false }, { show: false }],
        scales: {
          x: { time: false },
          y: { range: (_chart, _low, high) => [0, high > 0 ? high * 1.08 : 1] },
        },
        series: [
          {},
          {
            stroke: () => colour("accent"),
            fill: () => colour("accent-soft"),
            width: 1.75,
            points: { show: false },
            spanGaps: false,
          },
        ],
      },
      [[], []],
      element,
    );
    fit(this.chart, element);
    this.scale = document.createElement("figcaption");
    element.append(this.scale);
  }

  restart(times, values) {
    this.times = times;
    this.values = values;
    this.draw();
  }

  add(time, value) {
    const last = this.times.at(-1);
    if (last !== undefined && time <= last) return;
    if (time - last > GAP_SECONDS) {
      this.times.push(last + 1);
      this.values.push(null); // nothing was heard: draw nothing
    }
    this.times.push(time);
    this.values.push(value);
    while (this.times[0] < time - LONG_AGO_SECONDS) {
      this.times.shift();
      this.values.shift();
    }
    this.draw();
  }

  draw() {
    const known = this.values.filter((value) => value !== null);
    if (known.length) {
      const most = known.reduce((a, b) => Math.max(a, b));
      this.element.setAttribute(
        "aria-label",
        `${this.name}: ${this.describe(known.at(-1))} now, ${this.describe(most)} at most`,
      );
      if (this.scale) this.scale.textContent = `5 min, most ${this.describe(most)}`;
    }
    this.chart?.setData([this.times, this.values]);
    const end = this.times.at(-1) ?? 0;
    const shown = Math.min(LONG_AGO_SECONDS, Math.max(LEAST_SECONDS, end - this.times[0]));
    this.chart?.setScale("x", { min: end - shown, max: end });
  }

  redraw() {
    this.chart?.redraw();
  }
}

/** One user's scores as dots, and the median with its band as they moved. */
export class UserPlot {
  constructor(element) {
    this.element = element;
    if (!globalThis.uPlot) return;
    const axis = {
      stroke: () => colour("muted"),
      grid: { stroke: () => colour("grid"), width: 1 },
      ticks: { stroke: () => colour("grid"), width: 1, size: 4 },
      font: "12px system-ui, sans-serif",
    };
    const hidden = { points: { show: false }, stroke: "transparent", width: 0 };
    this.chart = new uPlot(
      {
        width: element.clientWidth || 600,
        height: element.clientHeight || 300,
        padding: [12, 26, 0, 0],
        cursor: { show: false },
        legend: { show: false },
        scales: { x: { time: false }, y: { range: UserPlot.range } },
        axes: [
          { ...axis, space: 90, size: 34, values: (_chart, ticks) => ticks.map(clock) },
          { ...axis, size: 58, values: (_chart, ticks) => ticks.map((tick) => String(Number(tick.toPrecision(4)))) },
        ],
        bands: [{ series: [3, 2], fill: () => colour("band") }],
        series: [
          {},
          {
            stroke: () => colour("dot"),
            width: 0,
            paths: () => null,
            points: { show: true, size: 4, width: 0, fill: () => colour("dot"), space: 0 },
          },
          { ...hidden, stroke: () => colour("band-edge"), width: 1, spanGaps: true },
          { ...hidden, stroke: () => colour("band-edge"), width: 1, spanGaps: true },
          { stroke: () => colour("median"), width: 2.5, points: { show: false }, spanGaps: true },
        ],
        hooks: { drawClear: [(chart) => this.drawNow(chart)] },
      },
      [[], [], [], [], []],
      element,
    );
    fit(this.chart, element);
  }

  static range(_chart, low, high) {
    if (low === null || low === undefined) return [0, 1];
    const margin = (high - low || Math.abs(high) || 1) * 0.08;
    return [low - margin, high + margin];
  }

  /** Show `view`, with `trail` the points (time, median, low, high) seen so far. */
  draw(view, trail) {
    this.view = view;
    if (!this.chart) return;
    const begin = view.time - view.window_seconds;
    const inside = trail.filter((point) => point.time >= begin);
    // uPlot has one column of times: dots and lines each have gaps where the other has values.
    const rows = view.timestamps
      .map((time, index) => [time, view.scores[index], undefined, undefined, undefined])
      .concat(inside.map((point) => [point.time, undefined, point.low, point.high, point.median]))
      .sort((a, b) => a[0] - b[0]);
    const columns = [0, 1, 2, 3, 4].map((column) => rows.map((row) => row[column]));
    this.chart.setData(columns);
    const end = Math.max(view.time, view.timestamps[0] ?? view.time);
    this.chart.setScale("x", { min: begin, max: end });
  }

  /** Behind the rest, the median and the band as they are now: from edge to edge, of all the dots. */
  drawNow(chart) {
    const view = this.view;
    if (!view || view.median === null) return;
    const { ctx, bbox } = chart;
    const top = chart.valToPos(view.high, "y", true);
    ctx.save();
    ctx.fillStyle = colour("band-now");
    ctx.fillRect(bbox.left, top, bbox.width, chart.valToPos(view.low, "y", true) - top);
    ctx.setLineDash([2 * devicePixelRatio, 5 * devicePixelRatio]);
    for (const [value, name] of [[view.median, "median"], [view.low, "band-edge"], [view.high, "band-edge"]]) {
      const y = Math.round(chart.valToPos(value, "y", true)) + 0.5;
      ctx.strokeStyle = colour(name);
      ctx.lineWidth = devicePixelRatio * (name === "median" ? 1.5 : 1);
      ctx.beginPath();
      ctx.moveTo(bbox.left, y);
      ctx.lineTo(bbox.left + bbox.width, y);
      ctx.stroke();
    }
    ctx.restore();
  }

  redraw() {
    this.chart?.redraw();
  }
}
