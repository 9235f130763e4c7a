// Locust's tabs show tables only: below that of the placement tab this puts the page with the charts.
(() => {
  const frame = document.createElement("iframe");
  frame.src = "./placement/";
  frame.title = "Placement over time";
  frame.style.cssText = "display: block; width: 100%; max-width: 1536px; height: 680px; margin: 16px auto; border: 0;";
  setInterval(() => {
    const tab = new URLSearchParams(window.location.search).get("tab");
    const main = document.querySelector("main");
    const shown = tab === "placement" && main && document.querySelector('[role="tablist"]');
    if (shown && frame.parentNode !== main) main.append(frame);
    if (!shown) frame.remove();
  }, 300);
})();
