// A program against the types that are made of the contract: it must compile, nothing runs it.

import type { components, paths } from "./contract";

type Prediction = paths["/predictions/scorer"]["post"];
type Median = paths["/users/{user_id}/median"]["get"];

const event: components["schemas"]["Event"] = { user_id: "alice", timestamp: 1, features: [1, 2, 3] };

// The three forms of a body.
export const bodies: Prediction["requestBody"]["content"]["application/json"][] = [
  { events: [event] },
  [event],
  event,
];

export function recorded(answer: components["schemas"]["Prediction"]): boolean {
  return answer.recorded === "stored" && answer.scores.every((score) => score !== null);
}

export function median(answer: Median["responses"][200]["content"]["application/json"]): number {
  return answer.median ?? Number.NaN;
}

// An error's status and code are known one by one.
export function again(
  problem: Prediction["responses"][503]["content"]["application/problem+json"],
): "not_recorded" | "not_confirmed" | "scoring_failed" {
  const status: 503 = problem.status;
  return status === 503 ? problem.code : "not_recorded";
}

// @ts-expect-error - a window is a number
export const question: components["schemas"]["MediansQuestion"] = { user_ids: ["alice"], window: "60" };

// @ts-expect-error - there is no such address
export type Missing = paths["/user/{user_id}/median"];
