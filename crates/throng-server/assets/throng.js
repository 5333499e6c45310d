// Live pages: when the node says that something changed, fetch this page again and put its <main>
// in place of the old one. Everything is rendered by the node; without this script the pages are
// the same, only still.
(() => {
  const light = document.querySelector(".live");
  const wanted = (document.body.dataset.changes || "").split(" ").filter(Boolean);
  let pending = false, busy = false;
  const typing = () => document.activeElement && document.activeElement.matches("main input");

  async function refresh() {
    if (busy || typing()) { pending = true; return; }
    busy = true; pending = false;
    try {
      const answer = await fetch(location.href, { headers: { accept: "text/html" } });
      if (answer.ok) {
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        const fresh = page.querySelector("main"), old = document.querySelector("main");
        if (fresh && old && fresh.innerHTML !== old.innerHTML) old.replaceWith(fresh);
        document.body.dataset.refreshed = String(Number(document.body.dataset.refreshed || 0) + 1);
      } else if (answer.status === 401) {
        location.reload(); // the session has ended: the node shows the page to sign in
      }
    } catch (_) { /* the node is away; the stream below comes back when it does */ }
    busy = false;
  }

  // Buttons that change something; the answer comes as a change of the page.
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button[data-post]");
    if (!button) return;
    button.disabled = true;
    const headers = { "content-type": "application/json", accept: "application/json" };
    const answer = await fetch(button.dataset.post, { method: "POST", headers, body: "{}" }).catch(() => null);
    if (answer && answer.ok) { pending = true; return; }
    const said = answer && await answer.json().catch(() => null);
    button.textContent = (said && said.error && said.error.message) || "It did not work: try again";
    button.disabled = false;
  });

  const stream = new EventSource("/v1/stream");
  stream.onopen = () => { light.classList.add("on"); light.textContent = "live"; pending = true; };
  stream.onerror = () => {
    light.classList.remove("on"); light.textContent = "not connected";
    if (stream.readyState === EventSource.CLOSED) pending = true; // refused: look why
  };
  stream.onmessage = (event) => { if (!wanted.length || wanted.includes(event.data)) pending = true; };
  setInterval(() => { if (pending && !busy && !document.hidden) refresh(); }, 500);
})();
