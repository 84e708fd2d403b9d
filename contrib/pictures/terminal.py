#!/usr/bin/env python3
"""Draws a terminal as SVG: tmux capture-pane -e -p | contrib/pictures/terminal.py >top.svg"""

import re
import sys
import unicodedata
from xml.sax.saxutils import escape

COLOURS = ["#222", "#e5534b", "#57ab5a", "#d9a514", "#539bf5", "#b083f0", "#39c5cf", "#ddd"]
INK, PAPER = "#ddd", "#1c2126"
WIDTH, HEIGHT, EDGE = 8, 17, 8


def runs(line):
    """The texts of a line with their column and style: colour, reversed, bold."""
    column, colour, inverse, bold = 0, INK, False, False
    for part in re.split(r"(\x1b\[[0-9;]*m)", line):
        if not part.startswith("\x1b"):
            if part:
                yield column, part, colour, inverse, bold
            column += sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in part)
            continue
        codes = [int(code or 0) for code in part[2:-1].split(";")]
        while codes:
            code = codes.pop(0)
            if code == 0:
                colour, inverse, bold = INK, False, False
            elif code in (1, 7):
                bold, inverse = bold or code == 1, inverse or code == 7
            elif 30 <= code <= 37:
                colour = COLOURS[code - 30]
            elif code == 38 and codes[:1] == [5]:
                colour = COLOURS[codes[1] % 8]
                codes = codes[2:]
            elif code == 39:
                colour = INK


lines = sys.stdin.read().rstrip("\n").split("\n")
columns = max(len(re.sub(r"\x1b\[[0-9;]*m", "", line)) for line in lines)
width, height = columns * WIDTH + 2 * EDGE, len(lines) * HEIGHT + 2 * EDGE
print(
    f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-size="13"'
    ' font-family="DejaVu Sans Mono, Menlo, Consolas, monospace">'
)
print(f'<rect width="{width}" height="{height}" rx="6" fill="{PAPER}"/>')
for row, line in enumerate(lines):
    for column, text, colour, inverse, bold in runs(line):
        x, y, length = EDGE + column * WIDTH, EDGE + row * HEIGHT, len(text) * WIDTH
        if inverse:
            print(f'<rect x="{x}" y="{y}" width="{length}" height="{HEIGHT}" fill="{colour}"/>')
        if text.strip():
            weight = ' font-weight="bold"' if bold else ""
            print(
                f'<text x="{x}" y="{y + 13}" textLength="{length}" xml:space="preserve"'
                f' fill="{PAPER if inverse else colour}"{weight}>{escape(text)}</text>'
            )
print("</svg>")
