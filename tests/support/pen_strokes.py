"""How a person writes the ten digits: lines through points, in 280ths of the drawing area."""

_WRITTEN = """
0: 140,50 105,62 85,105 82,150 95,200 130,228 168,218 192,175 194,125 178,75 150,52 138,50
1: 108,92 128,76 146,56 146,100 145,150 145,200 144,230
2: 86,96 96,68 126,52 162,58 182,84 178,116 152,152 118,188 86,222 120,220 160,220 198,221
3: 92,72 116,54 150,52 176,70 178,98 156,122 126,132 160,140 184,164 182,200 154,224 118,226 88,208
4: 126,52 112,90 98,126 88,152 120,152 160,150 200,148
4: 170,92 168,130 166,180 164,232
5: 186,56 150,57 108,58 104,90 101,122 128,112 160,118 184,144 186,180 166,212 132,226 96,216
6: 172,52 138,74 108,116 94,162 100,204 130,228 164,220 182,190 172,160 142,148 112,160 97,184
7: 84,62 120,61 160,60 196,59 178,96 158,140 140,186 126,232
8: 176,82 152,56 118,58 100,84 114,114 148,138 176,166 178,202 152,228 118,224 98,196 146,134 176,80
9: 178,84 156,58 122,58 100,86 104,120 132,138 164,126 180,92 180,130 174,180 164,230
"""


def _points(text):
    return [tuple(map(int, point.split(","))) for point in text.split()]


def _lines(digit):
    rows = [row.split(": ") for row in _WRITTEN.strip().splitlines()]
    return [_points(text) for name, text in rows if name == str(digit)]


STROKES = {digit: _lines(digit) for digit in range(10)}


def smooth(points, between=6):
    """The line as a hand draws it: a curve through the points (Catmull-Rom)."""
    ends = [points[0], *points, points[-1]]
    curve = [
        tuple(_between(*values, step / between) for values in zip(*four, strict=True))
        for four in zip(ends, ends[1:], ends[2:], ends[3:], strict=False)
        for step in range(between)
    ]
    return [*curve, points[-1]]


def _between(before, start, end, after, t):
    return (
        start
        + (end - before) / 2 * t
        + (before - 2.5 * start + 2 * end - after / 2) * t**2
        + (1.5 * (start - end) + (after - before) / 2) * t**3
    )
