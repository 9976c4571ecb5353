"""The style sheet of the page: light, dark and paper, phone and desktop. Nothing is loaded, and no script runs."""

from pipeline.look import CLASS_COLORS, OBJECT_COLOURS, THEME

__all__ = ["STYLE"]

_LINES = "".join(
    f".{kind}{at}{{stroke:#{red:02x}{green:02x}{blue:02x}}}"
    for kind, colours in (("c", OBJECT_COLOURS), ("k", CLASS_COLORS))
    for at, (red, green, blue) in enumerate(colours)
)
"""Outlines of objects, and of classes."""

STYLE = (
    THEME
    + _LINES
    + """
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:72rem;margin:0 auto;padding:1rem}
h1{font-size:1.5rem;line-height:1.25;margin:.5rem 0;overflow-wrap:anywhere}
h2{font-size:1.15rem;margin:0 0 .6rem}h3{font-size:1rem;margin:1rem 0 .3rem}
p{margin:.4rem 0;overflow-wrap:anywhere}.soft,figcaption{color:var(--soft);font-size:.9rem}
section{background:var(--card);border:1px solid var(--rule);border-radius:.6rem;padding:1rem;margin:1rem 0;min-width:0}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:.7rem;margin:.8rem 0 0;padding:0}
.facts div{border-left:3px solid var(--rule);padding-left:.7rem;min-width:0}
.facts dt{color:var(--soft);font-size:.85rem}.facts dd{margin:0;font-size:1.2rem;font-weight:600;overflow-wrap:anywhere}
.good{color:var(--good)}.bad{color:var(--bad)}.care{color:var(--care)}
.note{border-left:4px solid var(--care);padding:.2rem .8rem;margin:.7rem 0}.note.bad{border-color:var(--bad)}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,22rem),1fr));gap:1rem}
.pair>*{min-width:0}
figure{margin:0 0 .8rem}figcaption{margin-top:.3rem}
.picture{display:block;width:100%;height:auto;max-height:80vh;background:#000;border-radius:.3rem}
.exact{image-rendering:pixelated}
.lines path{fill:none;stroke-width:1.4;vector-effect:non-scaling-stroke}
.frame{fill:none;stroke:#fff;stroke-width:1.5;vector-effect:non-scaling-stroke;stroke-dasharray:5 3}
.scale{stroke:#fff;stroke-width:4;vector-effect:non-scaling-stroke}
#outlines:not(:checked)~* .over{visibility:hidden}
.strip{display:grid;grid-template-columns:repeat(auto-fill,minmax(7.5rem,1fr));gap:.6rem}
.strip img{display:block;width:100%;height:auto;border-radius:.2rem}
.plot{display:block;width:100%;max-width:34rem;height:auto;max-height:26rem}
.plot text{font-size:11px;fill:var(--ink)}.plot .end{text-anchor:end}.plot .mid{text-anchor:middle}
.plot .soft{fill:var(--soft)}.plot .strong{font-weight:600}
.plot .bar{fill:var(--bar)}.plot .here{fill:var(--here)}.plot .shade{fill:var(--shade)}
.plot .grid,.plot .base{stroke:var(--rule);stroke-width:1}.plot .base{stroke:var(--soft)}
.plot .mark{stroke:var(--mark);stroke-width:1.5}.plot .dashed{stroke-dasharray:5 3}
.q0{fill:var(--q0)}.q1{fill:var(--q1)}.q2{fill:var(--q2)}.q3{fill:var(--q3)}
.q4{fill:var(--q4)}.q5{fill:var(--q5)}.q6{fill:var(--q6)}.q7{fill:var(--q7)}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .7rem .25rem 0;text-align:right;border-bottom:1px solid var(--rule);white-space:nowrap}
th:first-child,td:first-child{text-align:left}td.text{text-align:left;white-space:normal;overflow-wrap:anywhere}
th{color:var(--soft);font-weight:500}
details{margin:.6rem 0}summary{cursor:pointer}
pre{margin:.4rem 0;padding:.6rem;background:var(--ground);border-radius:.3rem;overflow:auto;max-height:30rem;
font-size:.8rem}
code{font-size:.9em;overflow-wrap:anywhere}footer{color:var(--soft);font-size:.85rem;margin:1rem 0}
@media print{section{break-inside:avoid}details:not([open]){display:none}}
"""
)
