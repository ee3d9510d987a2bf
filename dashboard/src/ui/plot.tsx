/** A plot over time. All plots of a page have one cursor. */
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import { colour, theme } from "../theme";
import { Store, useStore } from "../store";

/** Where plots begin and end inside their box, so that the strip of events is under the same times. */
export const LEFT = 56;
export const RIGHT = 16;
const HEIGHT = 136;

export interface Curve {
  label: string;
  values: (number | null)[];
  /** A variable of the style sheet. */
  colour: string;
  dashed?: boolean;
  filled?: boolean;
}

/** The step that the cursor is at; null: none. */
export const cursor = new Store<number | null>(null);

/** Something that happened, drawn as a line at its time. */
export interface Mark {
  unixS: number;
  /** A variable of the style sheet. */
  colour: string;
}

interface PlotProps {
  title: string;
  marks: Mark[];
  time: number[];
  range: [number, number];
  curves: Curve[];
  format: (value: number) => string;
}

/** Times of day on an axis of minutes or hours, days on a longer one; seconds where several ticks are in one minute. */
export function tick(unixS: number, lengthS: number, stepS: number): string {
  const at = new Date(unixS * 1000);
  const two = (value: number) => String(value).padStart(2, "0");
  const time = `${two(at.getHours())}:${two(at.getMinutes())}`;
  if (stepS < 60) return `${time}:${two(at.getSeconds())}`;
  if (lengthS <= 2 * 86_400) return time;
  return `${at.getMonth() + 1}-${two(at.getDate())} ${time}`;
}

function drawMarks(plot: uPlot, marks: Mark[]): void {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.lineWidth = window.devicePixelRatio;
  ctx.setLineDash([3 * window.devicePixelRatio, 3 * window.devicePixelRatio]);
  for (const mark of marks) {
    const x = plot.valToPos(mark.unixS, "x", true);
    if (x < bbox.left || x > bbox.left + bbox.width) continue;
    ctx.strokeStyle = colour(mark.colour);
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
  }
  ctx.restore();
}

interface Latest {
  range: { current: [number, number] };
  marks: { current: Mark[] };
}

function options(width: number, props: PlotProps, { range, marks }: Latest): uPlot.Options {
  const [text, grid] = [colour("--muted"), colour("--line")];
  const font = "12px system-ui, sans-serif";
  const side = { stroke: text, font, grid: { stroke: grid, width: 1 }, ticks: { show: false } };
  return {
    width,
    height: HEIGHT,
    padding: [8, RIGHT, 0, 0],
    legend: { show: false },
    cursor: { sync: { key: "time" }, y: false, points: { size: 6 }, drag: { x: false, y: false } },
    hooks: {
      setCursor: [(plot) => cursor.set(plot.cursor.idx ?? null)],
      draw: [(plot) => drawMarks(plot, marks.current)],
    },
    scales: {
      x: { range: () => range.current },
      y: { range: (_, __, most) => [0, most > 0 ? most * 1.15 : 1] },
    },
    axes: [
      { ...side, space: 80, size: 28, values: (_, at, __, ___, step) => at.map((one) => tick(one, props.range[1] - props.range[0], step)) },
      { ...side, size: LEFT, space: 32, values: (_, at) => at.map(props.format) },
    ],
    series: [
      {},
      ...props.curves.map((curve) => ({
        label: curve.label,
        stroke: colour(curve.colour),
        width: 1.5,
        points: { show: false },
        spanGaps: true,
        ...(curve.dashed ? { dash: [4, 3] } : {}),
        ...(curve.filled ? { fill: colour(curve.colour, 0.13) } : {}),
      })),
    ],
  };
}

export function Plot(props: PlotProps) {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const range = useRef(props.range);
  const marks = useRef(props.marks);
  const chosen = useStore(theme);
  const at = useStore(cursor);
  range.current = props.range;
  marks.current = props.marks;
  const data = useRef<uPlot.AlignedData>([[]]);
  data.current = [props.time, ...props.curves.map((curve) => curve.values)];

  useEffect(() => {
    const element = box.current;
    if (element === null) return;
    const make = () => {
      plot.current?.destroy();
      plot.current = new uPlot(options(element.clientWidth, props, { range, marks }), data.current, element);
    };
    make();
    const resized = new ResizeObserver(() => plot.current?.setSize({ width: element.clientWidth, height: HEIGHT }));
    resized.observe(element);
    const dark = window.matchMedia("(prefers-color-scheme: dark)");
    dark.addEventListener("change", make);
    return () => {
      dark.removeEventListener("change", make);
      resized.disconnect();
      plot.current?.destroy();
      plot.current = null;
    };
  }, [chosen, props.curves.length, props.range[1] - props.range[0]]);
  useEffect(() => plot.current?.setData(data.current), [props.time, props.range[0], props.marks.length]);

  const shown = at ?? props.time.length - 1;
  const readings = props.curves.map((curve) => {
    const value = curve.values[shown];
    return { ...curve, text: value == null ? "–" : props.format(value) };
  });
  const summary = readings.map((reading) => `${reading.label} ${reading.text}`).join(", ");
  return (
    <section class="card plot">
      <div class="plot-head">
        <h3>{props.title}</h3>
        <ul class="legend">
          {readings.map((reading) => (
            <li key={reading.label}>
              <svg viewBox="0 0 16 4" width="16" height="4" aria-hidden="true">
                <path d="M0 2h16" class="swatch" style={{ stroke: `var(${reading.colour})`, strokeDasharray: reading.dashed ? "4 3" : "" }} />
              </svg>
              {reading.label} <strong>{reading.text}</strong>
            </li>
          ))}
        </ul>
      </div>
      <div ref={box} class="plot-box" role="img" aria-label={`${props.title}: ${summary}`} />
    </section>
  );
}
