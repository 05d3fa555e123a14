// Keys of the page. A slider that is moved by the arrow keys is rendered in full once they rest, as on release of the
// pointer; a, r and the arrows review edits, unless somebody is typing.
(() => {
  const resting = new WeakMap();
  document.addEventListener("keyup", (event) => {
    const slider = event.target;
    if (slider.type !== "range") return;
    clearTimeout(resting.get(slider));
    resting.set(slider, setTimeout(() => slider.dispatchEvent(new Event("pointerup", { bubbles: true })), 400));
  });
  const buttons = { a: "accept", r: "reject", ArrowLeft: "previous", ArrowRight: "next" };
  document.addEventListener("keydown", (event) => {
    const name = buttons[event.key];
    const typing = event.target.closest("input, textarea, select, [contenteditable], [role=tab], [role=listbox]");
    if (!name || typing || event.ctrlKey || event.metaKey || event.altKey) return;
    const button = document.getElementById(name);
    if (button && button.offsetParent !== null && !button.disabled) {
      event.preventDefault();
      button.click();
    }
  });
})();
