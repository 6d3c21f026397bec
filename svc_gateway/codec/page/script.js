"use strict";
const token = document.getElementById("access-token");
document.getElementById("credentials").hidden = false;

function reveal() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) {
    target.open = true;
    target.scrollIntoView();
  }
}
addEventListener("hashchange", reveal);
reveal();

const filter = document.getElementById("filter");
filter.hidden = false;
filter.addEventListener("input", () => {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const operation of document.querySelectorAll("details.operation")) {
    const found = words.every((word) => operation.dataset.search.includes(word));
    operation.hidden = !found;
    const link = document.querySelector(`nav a[href="#${CSS.escape(operation.id)}"]`);
    if (link) link.parentElement.hidden = !found;
  }
  for (const service of document.querySelectorAll("section.service")) {
    service.hidden = words.length > 0 && !service.querySelector("details.operation:not([hidden])");
  }
});

function address(call, form) {
  const query = new URLSearchParams();
  let path = call.path;
  for (const input of form.querySelectorAll("input[data-in]")) {
    if (input.value === "") continue;
    if (input.dataset.in === "path") path = path.replace(`{${input.name}}`, encodeURIComponent(input.value));
    else for (const value of input.value.split(",")) query.append(input.name, value.trim());
  }
  const text = query.toString();
  return text ? `${path}?${text}` : path;
}

async function show(response, result) {
  const head = `${response.status} ${response.statusText}\n\n`;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  const streaming = (response.headers.get("content-type") || "").startsWith("text/event-stream");
  let text = "";
  for (;;) {
    const {value, done} = await reader.read();
    if (done) break;
    text = (text + value).slice(-200000);
    if (streaming) result.textContent = head + text;
  }
  try {
    if (!streaming) text = JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    // An answer that is not JSON is shown as it came.
  }
  result.textContent = head + text;
}

for (const form of document.querySelectorAll("form.trial")) {
  const call = JSON.parse(form.dataset.call);
  const result = form.querySelector(".result");
  const stop = form.querySelector(".stop");
  let abort = null;
  form.hidden = false;
  stop.addEventListener("click", () => abort && abort.abort());
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (abort) abort.abort();
    const own = new AbortController();
    abort = own;
    result.hidden = stop.hidden = false;
    result.textContent = "…";
    const options = {method: call.method, headers: {}, signal: own.signal, credentials: "omit", cache: "no-store"};
    if (token.value) options.headers.Authorization = `Bearer ${token.value.trim()}`;
    const body = form.querySelector("textarea");
    if (body) {
      options.headers["Content-Type"] = "application/json";
      options.body = body.value;
    }
    try {
      await show(await fetch(address(call, form), options), result);
    } catch (error) {
      result.textContent += own.signal.aborted ? "\n(stopped)" : `\n${error}`;
    }
    if (abort === own) {
      stop.hidden = true;
      abort = null;
    }
  });
}
