"use strict";
const byId = (id) => document.getElementById(id);

const theme = byId("theme");
const prefersDark = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (document.documentElement.dataset.theme || (prefersDark.matches ? "dark" : "light")) === "dark";
const showTheme = () => {
  theme.textContent = isDark() ? "light" : "dark";
  theme.setAttribute("aria-pressed", String(isDark()));
};
theme.addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  showTheme();
});
prefersDark.addEventListener("change", showTheme);
showTheme();

const gallery = byId("gallery");
if (gallery) {
  const cards = [...gallery.children].map((element) => ({
    element,
    recipe: JSON.parse(element.dataset.recipes),
    flag: JSON.parse(element.dataset.flags),
    kind: JSON.parse(element.dataset.kinds),
    text: `${element.getAttribute("aria-label")} ${element.textContent}`.toLowerCase(),
  }));
  const selects = ["recipe", "flag", "kind"];
  const visible = () => cards.filter((card) => !card.element.hidden).map((card) => card.element);
  const aim = (element) => {
    for (const card of cards) card.element.tabIndex = card.element === element ? 0 : -1;
  };

  const filter = () => {
    const text = byId("f-text").value.trim().toLowerCase();
    for (const card of cards) {
      const fits = selects.every((name) => {
        const wanted = byId(`f-${name}`).value;
        return !wanted || card[name].includes(wanted);
      });
      card.element.hidden = !fits || !card.text.includes(text);
    }
    const left = visible();
    byId("shown").textContent = `${left.length} of ${cards.length} shown`;
    byId("none").hidden = left.length > 0;
    aim(left[0]);
  };
  byId("filters").addEventListener("input", filter);
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  filter();

  const viewer = byId("viewer");
  let current = null;
  const open = (element) => {
    current = element;
    byId("viewed").replaceChildren(...[...element.children].map((child) => child.cloneNode(true)));
    if (!viewer.open) viewer.showModal();
    viewer.scrollTop = 0;
  };
  byId("close").addEventListener("click", () => viewer.close());
  viewer.addEventListener("click", (event) => event.target === viewer && viewer.close());
  viewer.addEventListener("close", () => {
    aim(current);
    current.focus();
  });

  const columns = () => getComputedStyle(gallery).gridTemplateColumns.split(" ").length;
  const step = (key) => ({ ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns(), ArrowUp: -columns() })[key];
  const move = (from, key) => {
    const left = visible();
    return left[left.indexOf(from) + step(key)];
  };
  gallery.addEventListener("click", (event) => {
    const card = event.target.closest("article");
    if (card && !String(getSelection())) open(card);
  });
  gallery.addEventListener("keydown", (event) => {
    const card = event.target.closest("article");
    if (!card) return;
    if (event.key === "Enter") {
      event.preventDefault(); // else the same key presses the button that the dialog focuses
      open(card);
    }
    const next = step(event.key) && move(card, event.key);
    if (next) {
      event.preventDefault();
      aim(next);
      next.focus();
    }
  });
  viewer.addEventListener("keydown", (event) => {
    const next = ["ArrowLeft", "ArrowRight"].includes(event.key) && move(current, event.key);
    if (next) open(next);
  });
}
