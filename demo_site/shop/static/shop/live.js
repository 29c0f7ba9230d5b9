"use strict";

// Renew what changes by itself, once a second. Without scripts the page has to be loaded again.
{
  const url = document.body.dataset.live;
  const stale = document.getElementById("stale");
  const shown = new Map();

  const show = (part, html) => {
    if (shown.get(part) === html) return;
    const focused = part.contains(document.activeElement) && document.activeElement.id;
    part.innerHTML = html; // made by our own templates, which escape
    shown.set(part, html);
    if (focused) document.getElementById(focused)?.focus();
  };

  const renew = async () => {
    const answer = await fetch(url);
    if (!answer.ok) throw new Error(`${url} was answered with ${answer.status}`);
    const parts = await answer.json();
    for (const part of document.querySelectorAll("[data-part]")) show(part, parts[part.dataset.part]);
  };

  const go = async () => {
    if (!document.hidden) stale.hidden = await renew().then(() => true, () => false);
    setTimeout(go, 1000);
  };
  go();
}
