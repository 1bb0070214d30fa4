// Dark or light: as the system has it, until a person chooses.

const KEY = "tower.theme";
const system = matchMedia("(prefers-color-scheme: light)");

export const isLight = () => (localStorage.getItem(KEY) ?? (system.matches ? "light" : "dark")) === "light";

export function applyTheme() {
  const chosen = localStorage.getItem(KEY);
  if (chosen) document.documentElement.dataset.theme = chosen;
  else delete document.documentElement.dataset.theme;
}

export function switchTheme() {
  const other = isLight() ? "dark" : "light";
  const asSystem = other === (system.matches ? "light" : "dark");
  if (asSystem) localStorage.removeItem(KEY);
  else localStorage.setItem(KEY, other);
  applyTheme();
}
