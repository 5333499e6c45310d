// Live pages: when the node reports a change, fetch the page again and replace its <main>. The node renders
// everything; without this script the pages have the same content, but are not updated.
(() => {
  const status = document.querySelector(".live");
  const watched = (document.body.dataset.changes || "").split(" ").filter(Boolean);
  let pending = false, busy = false;
  const isTyping = () => document.activeElement && document.activeElement.matches("main input, main select");

  // Replaces the content, and keeps what a reader would lose with it: the scroll positions of tables, and the focus on
  // the same link, field or button.
  function replace(old, fresh) {
    const scrolled = [...old.querySelectorAll(".scroll")].map((box) => box.scrollLeft);
    const keyOf = (element) => element.id || element.getAttribute("href") || [element.dataset.post, element.dataset.body].join(" ");
    const focused = old.contains(document.activeElement) && document.activeElement;
    old.replaceWith(fresh);
    fresh.querySelectorAll(".scroll").forEach((box, at) => { if (scrolled[at]) box.scrollLeft = scrolled[at]; });
    if (!focused) return;
    const same = [...fresh.querySelectorAll("a[href], button")].find((element) => keyOf(element) === keyOf(focused));
    if (same) same.focus({ preventScroll: true });
  }

  async function refresh() {
    if (busy || isTyping()) { pending = true; return; }
    busy = true; pending = false;
    try {
      const response = await fetch(location.href, { headers: { accept: "text/html" } });
      if (response.ok) {
        const page = new DOMParser().parseFromString(await response.text(), "text/html");
        const fresh = page.querySelector("main"), old = document.querySelector("main");
        if (fresh && old && fresh.innerHTML !== old.innerHTML) replace(old, fresh);
        document.body.dataset.refreshed = String(Number(document.body.dataset.refreshed || 0) + 1);
      } else if (response.status === 401) {
        location.reload(); // the session has ended: the node shows the sign-in page
      }
    } catch (_) { /* the node is unavailable; the stream below reconnects */ }
    busy = false;
  }

  // Buttons that send a request; the result shows as a change of the page.
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button[data-post]");
    if (!button) return;
    if (button.dataset.confirm && !window.confirm(button.dataset.confirm)) return;
    button.disabled = true;
    const headers = { "content-type": "application/json", accept: "application/json" };
    const response = await fetch(button.dataset.post, { method: "POST", headers, body: button.dataset.body || "{}" }).catch(() => null);
    const body = response && await response.json().catch(() => null);
    if (response && response.ok) {
      const incomplete = body && ((body.refused && body.refused.length) || body.warning);
      if (incomplete && body.message) window.alert(body.message); // what was not done, and why
      pending = true;
      return;
    }
    button.disabled = false;
    const error = body && body.error;
    const message = (error && error.message) || "The request failed: try again";
    window.alert(error && error.help ? `${message}. ${error.help}` : message);
    pending = true; // what is shown may be outdated
  });

  const stream = new EventSource("/v1/stream");
  stream.onopen = () => { status.classList.add("on"); status.textContent = "live"; pending = true; };
  stream.onerror = () => {
    status.classList.remove("on"); status.textContent = "not connected";
    if (stream.readyState === EventSource.CLOSED) pending = true; // the node refused the stream: reload to see why
  };
  stream.onmessage = (event) => { if (!watched.length || watched.includes(event.data)) pending = true; };
  setInterval(() => { if (pending && !busy && !document.hidden) refresh(); }, 500);
})();
