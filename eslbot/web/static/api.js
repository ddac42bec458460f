// Requests to the page process.

/** An error answer: `error` is a fixed word, `message` what is wrong, `remedy` what to do, `fields` what is wrong with which field. */
export class Problem extends Error {
  constructor(error, message, remedy = "", fields = undefined) {
    super(message);
    this.error = error;
    this.remedy = remedy;
    this.fields = fields;
  }
}

const TIMEOUT_MS = 10000;

/** The answer of /api/`path`. Throws Problem; where the session is over, the page reloads and shows the sign-in form. */
export async function getJson(path, fields = {}, signal = undefined) {
  const query = new URLSearchParams(Object.entries(fields).filter(([, value]) => value !== undefined && value !== ""));
  const timeout = AbortSignal.timeout(TIMEOUT_MS);
  let response;
  let body;
  try {
    response = await fetch(`/api/${path}${query.size ? `?${query}` : ""}`, {
      signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
      credentials: "same-origin",
    });
    body = await response.json();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Problem("no_answer", "The service does not answer.", "It is asked again.");
  }
  if (response.status === 401) {
    location.reload();
    throw new Problem("not_signed_in", "Sign in again.");
  }
  if (!response.ok) throw new Problem(body.error, body.problem, body.remedy, body.fields);
  return body;
}
