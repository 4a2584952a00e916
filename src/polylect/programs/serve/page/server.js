// What the page asks of the server.
const key = () => document.getElementById("key").value.trim();

export async function ask(path, body, signal) {
  const headers = { "Content-Type": "application/json" };
  if (key()) headers.Authorization = `Bearer ${key()}`;
  const options = body ? { method: "POST", body: JSON.stringify(body) } : {};
  const answer = await fetch(path, { headers, signal, ...options });
  if (answer.ok) return answer;
  if (answer.status === 401) document.getElementById("key-details").open = true;
  const said = await answer.json().catch(() => null);
  const error = new Error(said?.error?.message ?? `the server answers ${answer.status}`);
  throw Object.assign(error, { status: answer.status });
}

// The events of an answer that is streamed; throws what one of them says went wrong.
export async function* events(path, body, signal) {
  const answer = await ask(path, body, signal);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Error("the server went away");
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const data = part.replace(/^data: /, "");
      if (data === "[DONE]") return;
      const event = JSON.parse(data);
      if (event.error) throw new Error(event.error.message);
      yield event;
    }
  }
}
