"""Plots as one SVG: a card with panels, axes, lines, areas and bars.

Every card has its own background and follows the reader's colour scheme, so that it is readable on a light and on a
dark page, also where page and scheme differ. It must never draw a point that is not in its data.

Start reading at `Panel`.
"""

import math
from dataclasses import dataclass
from html import escape

STYLE = """
text { font-family: system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; font-size: 11px; fill: #1f2328 }
.title { font-size: 13px; font-weight: 600 } .dim { fill: #59636e } .strong { font-weight: 600 }
.card { fill: #ffffff; stroke: #d1d9e0 } .grid { stroke: #d8dee4; stroke-width: 1 } .axis { stroke: #818b98 }
.mark { stroke: #59636e; stroke-dasharray: 3 3 } .line { fill: none; stroke-width: 1.8; stroke-linejoin: round }
.a { fill: #0969da } .a.line { fill: none; stroke: #0969da } .b { fill: #a9b4c0 } .b.line { fill: none; stroke: #818b98 }
.c { fill: #ced5dc } .bad { fill: #cf222e } .bad.line { fill: none; stroke: #cf222e } .warn { fill: #d4751c }
.good { fill: #1a7f37 } .good.line { fill: none; stroke: #1a7f37 } .range { stroke: #1f2328; stroke-width: 2 }
"""

#: The same for a dark colour scheme.
DARK = """
text { fill: #e6edf3 } .dim { fill: #9198a1 } .card { fill: #0d1117; stroke: #3d444d } .grid { stroke: #262c36 }
.axis { stroke: #656c76 } .mark { stroke: #9198a1 } .a { fill: #4493f8 } .a.line { stroke: #4493f8 }
.b { fill: #656c76 } .b.line { stroke: #9198a1 } .c { fill: #3d444d } .bad { fill: #f85149 } .bad.line { stroke: #f85149 }
.warn { fill: #db8b3a } .good { fill: #3fb950 } .good.line { stroke: #3fb950 } .range { stroke: #e6edf3 }
"""


def card(width, height, title, parts):
    """The whole plot; `title` is its text for screen readers."""
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{escape(title)}">',
        f"<title>{escape(title)}</title>",
        f"<style>{STYLE}@media (prefers-color-scheme: dark) {{{DARK}}}</style>",
        f'<rect class="card" x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="6"/>',
        *parts, "</svg>", "",
    ])


def text(x, y, said, kind="", anchor="start"):
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(str(said))}</text>'


@dataclass
class Panel:
    """A rectangle with a scale on each axis."""

    left: float
    top: float
    width: float
    height: float
    x_range: tuple
    y_range: tuple
    x_log: bool = False
    y_log: bool = False

    def x(self, value):
        return self.left + self.width * part(value, self.x_range, self.x_log)

    def y(self, value):
        return self.top + self.height * (1 - part(value, self.y_range, self.y_log))

    def grid(self, ticks, labels=True):
        """Horizontal lines at `ticks`, a map of value to label."""
        out = []
        for value, label in ticks.items():
            y = self.y(value)
            out.append(f'<path class="grid" d="M{self.left} {y:.1f}h{self.width}"/>')
            if labels:
                out.append(text(self.left - 6, y + 4, label, "dim", "end"))
        return out

    def x_axis(self, ticks, labels=True):
        bottom = self.top + self.height
        out = [f'<path class="axis" d="M{self.left} {bottom}h{self.width}"/>']
        for value, label in ticks.items():
            x = self.x(value)
            out.append(f'<path class="axis" d="M{x:.1f} {bottom}v3"/>')
            if labels:
                out.append(text(x, bottom + 15, label, "dim", "middle"))
        return out

    def line(self, points, kind, more=""):
        path = "L".join(f"{self.x(x):.1f} {self.y(y):.1f}" for x, y in points)
        return f'<path class="{kind} line" {more} d="M{path}"/>'

    def dots(self, points, kind, radius=3):
        return "".join(f'<circle class="{kind}" cx="{self.x(x):.1f}" cy="{self.y(y):.1f}" r="{radius}"/>' for x, y in points)

    def steps(self, lows, highs, kind):
        """A band: for each whole x from its low to its high."""
        bottom, top = self.y_range
        within = lambda value: self.y(min(max(value, bottom), top))  # noqa: E731
        begin = int(self.x_range[0])
        there = [f"{self.x(begin + at + side):.1f} {within(high):.1f}" for at, high in enumerate(highs) for side in (0, 1)]
        back = [f"{self.x(begin + at + side):.1f} {within(low):.1f}" for at, low in enumerate(lows) for side in (0, 1)]
        return f'<path class="{kind}" d="M{"L".join(there + back[::-1])}Z"/>'

    def mark(self, value):
        x = self.x(value)
        return f'<path class="mark" d="M{x:.1f} {self.top}v{self.height}"/>'


def part(value, bounds, log):
    low, high = bounds
    if log:
        value, low, high = (math.log(max(number, 1e-9)) for number in (value, low, high))
    return (value - low) / (high - low)
