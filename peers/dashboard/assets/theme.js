// Light or dark, as chosen here or as the system has it. Not a module: it runs before anything shows.
"use strict";

const theme = {
  get() {
    try {
      return localStorage.getItem("grid-theme") ?? "auto";
    } catch {
      return "auto"; // storage may be forbidden
    }
  },
  choose(name) {
    try {
      localStorage.setItem("grid-theme", name);
    } catch {
      // it then lasts as long as the page
    }
    theme.show(name);
  },
  show(name) {
    if (name === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = name;
  },
};

theme.show(theme.get());
document.addEventListener("DOMContentLoaded", () => {
  const select = document.getElementById("theme");
  if (!select) return;
  select.value = theme.get();
  select.addEventListener("change", () => theme.choose(select.value));
});
