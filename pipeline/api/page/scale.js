// How wide a frame is on the board: one scale for the whole episode, so that widths can be compared.

import { useEffect, useRef, useState } from "./vendor/preact.js";

export const HEIGHTS = { small: 72, medium: 124, large: 176 }; // of a card's picture, in px
const NARROWEST = { small: 1.7, medium: 3.3, large: 5 }; // px a frame
const WIDEST = 6; // px a frame: a short episode need not fill the page
const KEY = "tower.size";

// [ref of the container, px a frame, size, choose a size]
export function useScale(sequences) {
  const node = useRef();
  const [width, set] = useState(0);
  const [size, choose] = useState(() => (localStorage.getItem(KEY) in HEIGHTS ? localStorage.getItem(KEY) : sequences.length > 6 ? "small" : "medium"));
  useEffect(() => {
    const look = new ResizeObserver(([entry]) => set(Math.floor(entry.contentRect.width)));
    look.observe(node.current);
    return () => look.disconnect();
  }, []);
  const longest = Math.max(1, ...sequences.map((sequence) => sequence.frames));
  const scale = Math.min(WIDEST, Math.max(NARROWEST[size], width / longest));
  const keep = (name) => {
    localStorage.setItem(KEY, name);
    choose(name);
  };
  return [node, scale, size, keep];
}
