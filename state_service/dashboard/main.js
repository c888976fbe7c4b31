// Puts the page together: the stream of the whole service, the panels, the theme.

import { OverviewPanel } from "./overview.js";
import { keepToken, open } from "./stream.js";
import { UserPanel } from "./user.js";

const byId = (id) => document.getElementById(id);
const dark = matchMedia("(prefers-color-scheme: dark)");
const overview = new OverviewPanel();
const user = new UserPanel();

function connection(state, words) {
  document.body.dataset.connection = state;
  if (byId("connection").textContent !== words) byId("connection").textContent = words;
}

function watchService() {
  open("events", {
    onOpen: () => connection("live", "Live"),
    onLost: () => {
      connection("lost", "Connection lost, trying again …");
      overview.lost();
    },
    onRefused: (status, problem) => {
      byId("token-form").hidden = status !== 401;
      connection(status === 503 ? "lost" : "refused", problem.detail ?? `The service answers ${status}`);
    },
    onEvent: (name, data) => {
      if (name === "history") overview.restart(data);
      if (name === "overview") {
        overview.show(data);
        user.offerWindows(data.stats.window_seconds);
      }
    },
  });
}

byId("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  keepToken(byId("token").value);
  byId("token-form").hidden = true;
  watchService();
  user.followAddress();
});

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : dark.matches;
}

function showTheme() {
  byId("theme").setAttribute("aria-pressed", String(isDark()));
  overview.redraw();
  user.redraw();
}

byId("theme").addEventListener("click", () => {
  const theme = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem("theme", theme);
  } catch {
    // then it is the system's again next time
  }
  showTheme();
});
dark.addEventListener("change", showTheme);

byId("first-command").textContent = [
  `curl ${location.protocol}//${location.hostname}:8080/predictions/scorer \\`,
  "  -H 'Content-Type: application/json' \\",
  `  -d '{"user_id": "alice", "timestamp": '$(date +%s)', "features": [0.1, 0.2, 0.3]}'`,
].join("\n");

globalThis.medianserve = { overview, user }; // for a look from the console, and for tests

showTheme();
watchService();
user.followAddress();
