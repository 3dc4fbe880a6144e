"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const sliders = Object.fromEntries(["smallest", "alpha", "seeds"].map((name) => [name, document.getElementById(name)]));

// The rule of mnist_ablate.inference.verdicts.by_interval; low and high as they were measured.
function verdictOf(hypothesis, smallest, [, low, high, , , fixed]) {
  if (fixed || low === null) return fixed || "no verdict";
  if (hypothesis.kind === "decrease") [low, high] = [-high, -low];
  if (low > high) return "inconsistent";
  const inside = -smallest < low && high < smallest;
  if (hypothesis.kind === "negligible") {
    return inside ? "supported" : low > smallest || high < -smallest ? "refuted" : "inconclusive";
  }
  if (inside) return "negligible";
  if (high < 0) return "refuted";
  if (low > 0) return low > smallest ? "supported" : "supported, size open";
  return "inconclusive";
}

// The rule of mnist_ablate.inference.verdicts.claim_verdict.
function claimVerdict(verdicts) {
  const holds = verdicts.some((verdict) => verdict.startsWith("supported"));
  const fails = verdicts.some((verdict) => verdict === "refuted" || verdict === "negligible");
  const open = verdicts.some((verdict) => ["inconclusive", "no verdict", "inconsistent"].includes(verdict));
  if (holds && fails) return "in part";
  if (open) return new Set(verdicts).size === 1 ? verdicts[0] : "inconclusive";
  return ["refuted", "negligible", "supported, size open", "supported"].find((verdict) => verdicts.includes(verdict));
}

function badge(element, verdict) {
  element.textContent = data.badges[verdict];
  element.className = `${element.dataset.kind} ${verdict.replaceAll(",", "").replaceAll(" ", "-")}`;
}

// Zero is in the middle, and the axis does not move, so that a change of the sliders is a change of the drawing.
function draw(picture, { reach }, smallest, [mean, low, high]) {
  const x = (value) => 200 + (190 * Math.max(-reach, Math.min(reach, value))) / reach;
  const set = (part, values) => {
    for (const [name, value] of Object.entries(values)) picture.querySelector(part).setAttribute(name, value);
  };
  set(".band", { x: x(-smallest), width: x(smallest) - x(-smallest) });
  const drawn = low !== null && low <= high;
  set(".ends", { x1: drawn ? x(low) : 0, x2: drawn ? x(high) : 0, visibility: drawn ? "visible" : "hidden" });
  const at = mean === null ? 0 : x(mean);
  set(".mean", { x1: at, x2: at, visibility: mean === null ? "hidden" : "visible" });
}

function redraw() {
  const [factor, alpha, seeds] = ["smallest", "alpha", "seeds"].map((name) => Number(sliders[name].value));
  const texts = { smallest: data.times[factor], alpha: data.alphas[alpha], seeds: data.seeds[seeds] };
  for (const [name, text] of Object.entries(texts)) {
    document.getElementById(`${name}-value`).textContent = text;
    sliders[name].setAttribute("aria-valuetext", text);
  }
  const entries = data.at[seeds][alpha];
  const verdicts = data.hypotheses.map((hypothesis, i) => {
    const smallest = hypothesis.smallest * data.factors[factor];
    const verdict = verdictOf(hypothesis, smallest, entries[i]);
    const row = document.getElementById(`row-${i}`);
    row.querySelector(".estimate").textContent = entries[i][3];
    row.querySelector(".interval").textContent = entries[i][4];
    row.querySelector(".amount").textContent = hypothesis.amounts[factor];
    for (const element of row.querySelectorAll("[data-kind]")) badge(element, verdict);
    draw(row.querySelector("svg"), hypothesis, smallest, entries[i]);
    return verdict;
  });
  data.claims.forEach((parts, i) => {
    badge(document.getElementById(`claim-${i}`), claimVerdict(parts.map((part) => verdicts[part])));
  });
}

document.getElementById("sliders").hidden = false;
document.getElementById("again").addEventListener("click", () => {
  for (const slider of Object.values(sliders)) slider.value = slider.dataset.own;
  redraw();
});
for (const slider of Object.values(sliders)) slider.addEventListener("input", redraw);
redraw();
