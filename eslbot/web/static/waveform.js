// Draws a waveform of a recording's peaks as SVG.

const SVG = "http://www.w3.org/2000/svg";
/** The least share of half the height: silence is a line, too. */
const MIN_HEIGHT = 0.025;

/** The height, 0 to 1, of a peak of 0 to 255: its square root, since speech on a telephone is a tenth of full scale. */
const height = (peak) => Math.max(MIN_HEIGHT, Math.sqrt(Math.min(255, peak) / 255));

/** The outline: along the tops of the peaks, and back along their bottoms. */
export function outline(peaks) {
  const round = (value) => Math.round(value * 1000) / 1000;
  const tops = peaks.map((peak, index) => `V${round(1 - height(peak))}H${index + 1}`);
  const bottoms = peaks.map((_, index) => peaks.length - 1 - index).map((index) => `V${round(1 + height(peaks[index]))}H${index}`);
  return `M0 1${tops.join("")}${bottoms.join("")}Z`;
}

/** One side of one part, stretched to the width of its place. */
export function waveform(peaks, side) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", `wave ${side}`);
  svg.setAttribute("viewBox", `0 0 ${Math.max(1, peaks.length)} 2`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", outline(peaks));
  svg.append(path);
  return svg;
}
