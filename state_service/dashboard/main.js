// Puts the page together: the stream of the whole service, the panels, the theme.

import { OverviewPanel } from "./overview.js";
import { keepToken, open, token } from "./stream.js";
import { UserPanel } from "./user.js";

const byId = (id) => document.getElementById(id);
const dark = matchMedia("(prefers-color-scheme: dark)");
const overview = new OverviewPanel();
const user = new UserPanel();

function connection(state, words) {
  document.body.dataset.connection = state;
  overview.showTitle();
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
      if (status === 401) askForToken();
      else connection(status === 503 ? "lost" : "refused", problem.detail ?? `The service answers ${status}`);
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

/** Show nothing but the question for the token, and whether one was wrong. */
function askForToken() {
  const refused = Boolean(token());
  keepToken("");
  connection("refused", "A token is needed");
  document.body.dataset.access = "none";
  byId("token-form").hidden = false;
  byId("token-refused").hidden = !refused;
  byId("token").setAttribute("aria-invalid", String(refused));
  byId("token").focus();
  byId("token").select();
}

byId("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  keepToken(byId("token").value.trim());
  byId("token-form").hidden = true;
  delete document.body.dataset.access;
  showAccess();
  watchService();
  user.followAddress();
});

/** With a token, what opens in a tab of its own would be refused: offer to forget it instead. */
function showAccess() {
  byId("forget-token").hidden = !token();
  for (const link of document.querySelectorAll("[data-needs-access]")) link.hidden = Boolean(token());
}

byId("forget-token").addEventListener("click", () => {
  keepToken("");
  location.reload();
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

globalThis.medianserve = { overview, user }; // for a look from the console, and for tests

showTheme();
showAccess();
watchService();
user.followAddress();
