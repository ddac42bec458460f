// Questions to the worker.

/** Why there is no answer: `message` for people, `remedy` what to do, `error` a fixed word, `fields` what is wrong with which. */
export class Problem extends Error {
  constructor(error, message, remedy = "", fields = undefined) {
    super(message);
    this.error = error;
    this.remedy = remedy;
    this.fields = fields;
  }
}

const SECONDS = 10;

/** The answer to a question below /api/. Throws Problem; where the session is over, the form comes. */
export async function ask(place, fields = {}, signal = undefined) {
  const query = new URLSearchParams(Object.entries(fields).filter(([, value]) => value !== undefined && value !== ""));
  const bound = AbortSignal.timeout(SECONDS * 1000);
  let answer;
  let document_;
  try {
    answer = await fetch(`/api/${place}${query.size ? `?${query}` : ""}`, {
      signal: signal ? AbortSignal.any([signal, bound]) : bound,
      credentials: "same-origin",
    });
    document_ = await answer.json();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Problem("no_answer", "The service does not answer.", "It is asked again.");
  }
  if (answer.status === 401) {
    location.reload();
    throw new Problem("not_signed_in", "Sign in again.");
  }
  if (!answer.ok) throw new Problem(document_.error, document_.problem, document_.remedy, document_.fields);
  return document_;
}
