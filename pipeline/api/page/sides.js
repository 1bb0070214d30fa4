// Which takes lie on the sides A and B, and which side is chosen.

import { useEffect, useMemo, useState } from "./vendor/preact.js";

export function useSides({ takes, card }) {
  const [names, lay] = useState(() => first(takes, card));
  const [side, choose] = useState("A");
  const laid = useMemo(() => ({ A: find(takes, names.A), B: find(takes, names.B) }), [takes, names]);
  useEffect(() => {
    if (!laid.A && takes.length) lay(first(takes, card));
  }, [takes]);
  const other = side === "A" ? "B" : "A";
  // A take that lies on the other side changes places with this one's.
  const put = (take) => lay({ [side]: take, [other]: names[other] === take ? names[side] : names[other] });
  return {
    names, laid, put, choose,
    side, // the chosen one; B may still be empty
    shown: laid[side] ? side : "A",
    take: laid[side] ?? laid.A,
    both: Boolean(laid.A && laid.B),
    many: takes.filter((take) => take.media).length > 1,
    other: () => choose(other),
    into: (number) => takes[number]?.media && put(takes[number].take),
  };
}

const find = (takes, name) => takes.find((take) => take.take === name) ?? null;

// A take that stands on A, the newest other one of its stage on B.
function first(takes, card) {
  const seen = takes.filter((take) => take.media);
  const A = find(takes, card.clip) ?? seen.filter((take) => take.stage !== "keyframe").at(-1) ?? seen.at(-1);
  const B = seen.filter((take) => A && take.stage === A.stage && take !== A).at(-1);
  return { A: A?.take ?? null, B: B?.take ?? null };
}
