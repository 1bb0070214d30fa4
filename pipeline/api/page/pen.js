// The pen: what is drawn stays with the frame and the take that it was drawn on, until it is said or put away.

import { useState } from "./vendor/preact.js";

export function usePen(deck, take, frame) {
  const [held, hold] = useState(null); // {take, frame, lines}
  const drawn = held?.lines.length ? held : null;
  const draw = (lines) => hold({ take: take.take, frame, lines });
  return {
    held, drawn, draw,
    here: held !== null && (!drawn || (drawn.take === take?.take && drawn.frame === frame)),
    toggle: () => {
      deck.stop();
      if (held) hold(null);
      else draw([]);
    },
    undo: () => draw(held.lines.slice(0, -1)),
    putAway: () => hold(null),
  };
}
