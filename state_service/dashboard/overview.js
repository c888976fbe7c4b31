// The service as a whole: every figure with `data-stat` is the one of that name in GET /stats.

import { Spark } from "./charts.js";
import * as format from "./format.js";

const FORMATS = { seconds: format.seconds, bytes: format.bytes, text: format.text };
const WINDOW_PLACES = ["window", "window-again"];

function put(id, value) {
  const element = document.getElementById(id);
  if (element.textContent !== value) element.textContent = value;
}

/** Show `conditions`; touch nothing when they are as before, so that nothing is read out again. */
function showConditions(conditions) {
  const section = document.getElementById("conditions");
  const said = JSON.stringify(conditions);
  if (section.dataset.said === said) return;
  section.dataset.said = said;
  section.replaceChildren(
    ...conditions.map(({ level, sentence }) => {
      const line = document.createElement("p");
      line.className = `condition ${level}`;
      line.textContent = sentence;
      return line;
    }),
  );
}

function showRanking(id, users) {
  const rows = users.map((user) => {
    const row = document.createElement("tr");
    const name = document.createElement("th");
    name.scope = "row";
    const link = document.createElement("a");
    const id = document.createElement("bdi");
    id.textContent = format.userId(user.user_id);
    link.append(id);
    link.title = user.user_id;
    link.href = `#user=${encodeURIComponent(user.user_id)}`;
    name.append(link);
    row.append(name);
    for (const value of [format.number(user.count), format.score(user.median)]) {
      const cell = document.createElement("td");
      cell.textContent = value;
      row.append(cell);
    }
    return row;
  });
  if (!rows.length) {
    const row = document.createElement("tr");
    const cell = document.createElement("td");
    cell.colSpan = 3;
    cell.className = "nobody";
    cell.textContent = "nobody yet";
    row.append(cell);
    rows.push(row);
  }
  const body = document.querySelector(`#${id} tbody`);
  const focused = body.contains(document.activeElement) ? document.activeElement.title : null;
  body.replaceChildren(...rows);
  if (focused !== null) {
    [...body.querySelectorAll("a")].find((link) => link.title === focused)?.focus();
  }
}

function showTorchServe(torchserve) {
  const { state, workers, workers_ready: ready } = torchserve;
  put("torchserve-state", state.replace("_", " "));
  put("torchserve-workers", workers === null ? format.NOTHING : `${ready} of ${workers}`);
  put("torchserve-queue", format.number(torchserve.queue_pending));
  put("torchserve-version", format.text(torchserve.version));
  const notes = {
    not_asked: "The settings torchserve_url and management_url say where to ask.",
    away: torchserve.detail,
    unhealthy: torchserve.detail,
    healthy: workers === null ? "Its management address is not set, so its workers are not known." : "",
  };
  put("torchserve-note", notes[state] ?? "");
}

/** The middle of all users' medians, as old as it is. */
function showMiddle({ median, users, seconds_ago: age }) {
  put(
    "middle-note",
    users
      ? `The median of ${format.number(users)} users' medians is ${format.score(median)} (${format.ago(age)}).`
      : "",
  );
}

/** Where a replay stands; under the server's own time there is nothing to show. */
function showReplay(clock) {
  document.getElementById("replay").hidden = clock === null;
  if (clock === null) return;
  put("replay-time", clock.time === null ? format.NOTHING : format.moment(clock.time));
  put("replay-behind", format.seconds(clock.behind_seconds));
  put("replay-waiting", format.seconds(clock.waiting_seconds));
}

/** What a newcomer may paste: to TorchServe's port as the state service knows it. */
function showFirstCommand(port) {
  put(
    "first-command",
    [
      `curl ${location.protocol}//${location.hostname}:${port}/predictions/scorer \\`,
      "  -H 'Content-Type: application/json' \\",
      `  -d '{"user_id": "alice", "timestamp": '$(date +%s)', "features": [0.1, 0.2, 0.3]}'`,
    ].join("\n"),
  );
}

export class OverviewPanel {
  constructor() {
    this.sparks = {
      events_per_second: new Spark(document.getElementById("chart-events"), format.number),
      requests_per_second: new Spark(document.getElementById("chart-requests"), format.number),
      ingest_latency_seconds: new Spark(document.getElementById("chart-latency"), format.seconds),
    };
    this.rankedAt = null;
    this.heardAt = null; // in this browser's time
    this.level = "waiting";
  }

  restart(history) {
    const times = history.map((rates) => rates.time);
    for (const [name, spark] of Object.entries(this.sparks)) {
      spark.restart([...times], history.map((rates) => rates[name]));
    }
  }

  show({ time, conditions, stats, rates, torchserve, rankings }) {
    showConditions(conditions);
    this.heardAt = new Date();
    this.level = conditions[0].level;
    this.showTitle();
    for (const element of document.querySelectorAll("[data-stat]")) {
      const value = element.dataset.stat.split(".").reduce((object, key) => object[key], stats);
      const shown = (FORMATS[element.dataset.unit] ?? format.number)(value);
      if (element.textContent !== shown) element.textContent = shown;
    }
    put("events-rate", format.number(rates.events_per_second));
    put("requests-rate", format.number(rates.requests_per_second));
    put("latency", format.seconds(rates.ingest_latency_seconds));
    for (const [name, spark] of Object.entries(this.sparks)) spark.add(rates.time, rates[name]);
    for (const place of WINDOW_PLACES) put(place, `the last ${format.length(stats.window_seconds)}`);
    put("window-again", format.length(stats.window_seconds));
    const last = stats.snapshot.last_at;
    put("snapshot-age", last === null ? "none yet" : format.ago(time - last));
    put("spool-note", stats.spool.reported_at === null ? "No handler has reported a spool yet." : "");
    showMiddle(stats.median_of_medians);
    showReplay(stats.event_clock);
    showTorchServe(torchserve);
    showFirstCommand(torchserve.port);
    if (rankings && rankings.time !== this.rankedAt) {
      this.rankedAt = rankings.time;
      showRanking("most-active", rankings.most_active);
      showRanking("highest-medians", rankings.highest_medians);
      showRanking("lowest-medians", rankings.lowest_medians);
      const least = rankings.min_count;
      put("ranked-note", least > 1 ? `Medians of users with ${least} scores or more.` : "");
    }
    this.showPhase(stats);
  }

  showPhase({ phase, restore, events_processed: events, held_events: held }) {
    const progress = document.getElementById("progress");
    progress.hidden = phase !== "restoring";
    const total = restore.segments_total + restore.journal_rows_total;
    progress.value = total ? (restore.segments_done + restore.journal_rows_done) / total : 0;
    document.getElementById("first-steps").hidden = phase !== "ready" || events > 0 || held > 0;
  }

  /** What was last heard may not be so any more: say it where one looks first. */
  lost() {
    this.level = "bad";
    const last = this.heardAt === null ? "" : ` The numbers are those of ${format.clock(this.heardAt)}.`;
    showConditions([
      { level: "bad", sentence: `The state service does not answer.${last} This page tries again.` },
    ]);
  }

  /** A tab in the background is its title: say there, too, that something is wrong. */
  showTitle() {
    const mark = { bad: "✕ ", warning: "! " }[this.level] ?? "";
    if (document.title !== `${mark}medianserve`) document.title = `${mark}medianserve`;
  }

  redraw() {
    for (const spark of Object.values(this.sparks)) spark.redraw();
  }
}
