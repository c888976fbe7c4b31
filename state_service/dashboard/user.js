// One user: the search, the figures and the plot that move with the events.

import { UserPlot } from "./charts.js";
import * as format from "./format.js";
import { open } from "./stream.js";

const byId = (id) => document.getElementById(id);

export class UserPanel {
  constructor() {
    this.stream = null;
    this.trail = [];
    byId("user-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.choose(byId("user-id").value);
    });
    byId("user-window").addEventListener("change", () => {
      if (this.userId !== undefined) this.watch(this.userId);
    });
    addEventListener("hashchange", () => this.followAddress());
  }

  /** Offer the whole window and a fifth of it, once it is known how long it is. */
  offerWindows(seconds) {
    const choice = byId("user-window");
    if (choice.dataset.seconds === String(seconds)) return;
    choice.dataset.seconds = seconds;
    choice.replaceChildren(
      ...[[seconds, ""], [seconds / 5, seconds / 5]].map(([length, value]) => {
        const option = document.createElement("option");
        option.value = value;
        option.textContent = `last ${format.length(length)}`;
        return option;
      }),
    );
  }

  /** Put the user into the address, which then is followed: the way back works, and a bookmark. */
  choose(userId) {
    let encoded;
    try {
      encoded = encodeURIComponent(userId);
    } catch {
      this.say("This text is not valid Unicode, so no user has it as an id.");
      return;
    }
    if (location.hash === `#user=${encoded}`) this.watch(userId);
    else location.hash = `user=${encoded}`;
  }

  followAddress() {
    const found = /^#user=(.+)$/s.exec(location.hash);
    if (!found) return;
    let userId;
    try {
      userId = decodeURIComponent(found[1]);
    } catch {
      this.say("The address of this page names no user.");
      return;
    }
    byId("user-id").value = userId;
    this.watch(userId);
    // Whoever chose from a list further down is led here, by eye and by keyboard.
    const list = document.querySelector(".rankings");
    this.lead = list.contains(document.activeElement) || scrollY > byId("user-title").offsetTop;
  }

  watch(userId) {
    this.stream?.close();
    this.userId = userId;
    this.trail = [];
    this.found = null;
    byId("user-view").hidden = true;
    this.say("Looking …");
    const window = byId("user-window").value;
    const address = `events?user_id=${encodeURIComponent(userId)}${window ? `&window=${window}` : ""}`;
    this.stream = open(address, {
      onOpen: () => {},
      onLost: () => {
        this.found = null; // so that it is said anew when it is back
        this.say("The connection was lost; trying again.");
      },
      onRefused: (status, problem) =>
        this.say(status === 401 ? "" : `Not shown: ${problem.detail ?? `the service answers ${status}`}.`),
      onEvent: (_name, view) => this.show(view),
    });
  }

  show(view) {
    const found = view.count > 0;
    for (const { time, median, low, high } of [...view.trail, view]) {
      if (!this.trail.length || time > this.trail.at(-1).time) this.trail.push({ time, median, low, high });
    }
    this.trail = this.trail.filter((point) => point.time >= view.time - view.window_seconds);
    const length = format.length(view.window_seconds);
    if (found && this.found !== true) this.say(`Watching “${format.isolated(view.user_id)}”, the last ${length}.`);
    if (!found && this.found !== false) {
      this.say(`No score of “${format.isolated(view.user_id)}” in the last ${length}. It is shown here as soon as one comes.`);
    }
    this.found = found;
    byId("user-view").hidden = !found;
    if (this.lead) {
      this.lead = false;
      byId("user-title").focus({ preventScroll: true });
      byId("user-title").scrollIntoView({ block: "start" });
    }
    if (!found) return;
    const figures = {
      "user-median": format.score(view.median),
      "user-count": format.number(view.count),
      "user-band": `${format.score(view.low)} to ${format.score(view.high)}`,
      "user-range": `${format.score(view.min)} to ${format.score(view.max)}`,
      "user-newest": format.ago(view.time - view.newest_timestamp),
      "user-shown":
        view.one_in > 1 ? `one in ${format.number(view.one_in)} scores is drawn` : "",
    };
    for (const [id, value] of Object.entries(figures)) {
      if (byId(id).textContent !== value) byId(id).textContent = value;
    }
    this.plot ??= new UserPlot(byId("user-plot"));
    this.plot.draw(view, this.trail);
    byId("user-plot").setAttribute(
      "aria-label",
      `Scores of ${format.isolated(view.user_id)} over the last ${length}: median ${format.score(view.median)}, ` +
        `nine in ten between ${format.score(view.low)} and ${format.score(view.high)}`,
    );
  }

  say(sentence) {
    byId("user-message").textContent = sentence;
  }

  redraw() {
    this.plot?.redraw();
  }
}
