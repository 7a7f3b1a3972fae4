"""The page's style sheet. Colours are variables, so that pictures and text follow the light or dark theme."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark; --ground: #fbfbfa; --card: #ffffff; --ink: #1c1d1f; --soft: #62666d; --rule:
  #e3e4e6; --blue: #2767c9; --orange: #cc6210; --green: #2e8b57; --violet: #7d4fc4; --teal: #14808c; --rose:
  #b83a67; --olive: #7c7a14; --brown: #8a5a3b; --none: #d4d6d9; --h0: #eef3fb; --h1: #d9e6f8; --h2: #bfd5f2; --h3:
  #9dbfea; --h4: #77a4de; --h5: #4f86ce; --h6: #2f68b5; --h7: #1c4b8f; --h8: #0e2f63; }
@media (prefers-color-scheme: dark) { :root { --ground: #16181b; --card: #1e2125; --ink: #e8e9eb; --soft: #a0a5ad;
  --rule: #34383e; --blue: #6fa3f2; --orange: #f0994a; --green: #5dbb85; --violet: #b08cf0; --teal: #4fb9c4; --rose:
  #ea7fa4; --olive: #c2bf4e; --brown: #c69572; --none: #454a51; --h0: #1f2733; --h1: #243247; --h2: #28405f; --h3:
  #2d507b; --h4: #34649b; --h5: #437dbd; --h6: #639bd8; --h7: #93bdec; --h8: #cfe2fa; } }
body { margin: 0; background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 26px; margin: 0 0 4px; }
h2 { font-size: 19px; margin: 40px 0 8px; }
h3 { font-size: 14px; margin: 18px 0 6px; color: var(--soft); }
.lead { color: var(--soft); margin: 0 0 18px; max-width: 90ch; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(210px, 1fr)); gap: 12px; }
.tile { background: var(--card); border: 1px solid var(--rule); border-radius: 8px; padding: 12px 14px; }
.tile .name, .tile .note { color: var(--soft); font-size: 13px; }
.tile .value { font-size: 23px; font-weight: 600; }
.pair { display: flex; flex-wrap: wrap; gap: 20px; align-items: flex-start; }
.pair > * { flex: 1 1 420px; }
.verdict { display: inline-block; margin: 0 0 14px; padding: 3px 14px; border-radius: 999px; font-weight: 600;
  color: var(--card); text-transform: capitalize; }
.good { background: var(--green); }
.bad { background: var(--rose); }
.open { background: var(--soft); }
.caveats { color: var(--soft); font-size: 14px; max-width: 100ch; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; margin-top: 14px; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 5px 7px; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th { color: var(--soft); font-weight: 500; }
th:first-child, td:first-child { text-align: left; }
tr.marked td { font-weight: 600; background: var(--card); }
.legend { color: var(--soft); font-size: 13px; margin: 4px 0 10px; }
.key { display: inline-block; width: 12px; height: 12px; border-radius: 3px; margin: 0 5px -1px 12px; }
.key:first-child { margin-left: 0; }
.key.mixture { background: var(--blue); border-radius: 50%; }
.key.uniform { background: var(--orange); transform: rotate(45deg) scale(.8); border-radius: 0; }
.key.chosen { border: 2px solid var(--green); border-radius: 50%; box-sizing: border-box; }
.key.dashed { height: 0; width: 20px; border-top: 2px dashed var(--soft); border-radius: 0; margin-bottom: 4px; }
.ramp { display: inline-block; width: 22px; height: 12px; margin-bottom: -1px; }
svg { max-width: 100%; height: auto; display: block; }
.scroll > svg { min-width: var(--least); }
.maps { display: flex; flex-wrap: wrap; gap: 4px 36px; }
svg text { font: 12px system-ui, sans-serif; }
.tick { fill: var(--soft); }
.label { fill: var(--soft); }
.note { fill: var(--ink); }
.grid { stroke: var(--rule); }
.axis { stroke: var(--soft); }
svg .mixture { fill: var(--blue); stroke: var(--ground); stroke-width: 1.5; }
svg .uniform { fill: var(--orange); stroke: var(--ground); stroke-width: 1.5; }
svg .chosen { fill: none; stroke: var(--green); stroke-width: 2.5; }
.halo { stroke: var(--ground); stroke-width: 3; paint-order: stroke; }
.front { fill: none; stroke: var(--blue); stroke-width: 2; }
.predicted { fill: none; stroke: var(--soft); stroke-width: 1.5; stroke-dasharray: 5 4; }
.bound { stroke: var(--rose); stroke-dasharray: 2 3; stroke-width: 1.5; }
.absent { fill: none; stroke: var(--rule); }
.h0 { fill: var(--h0); background: var(--h0); }
.h1 { fill: var(--h1); background: var(--h1); }
.h2 { fill: var(--h2); background: var(--h2); }
.h3 { fill: var(--h3); background: var(--h3); }
.h4 { fill: var(--h4); background: var(--h4); }
.h5 { fill: var(--h5); background: var(--h5); }
.h6 { fill: var(--h6); background: var(--h6); }
.h7 { fill: var(--h7); background: var(--h7); }
.h8 { fill: var(--h8); background: var(--h8); }
.s-none { fill: var(--none); background: var(--none); }
.s0 { fill: var(--blue); background: var(--blue); }
.s1 { fill: var(--orange); background: var(--orange); }
.s2 { fill: var(--green); background: var(--green); }
.s3 { fill: var(--violet); background: var(--violet); }
.s4 { fill: var(--teal); background: var(--teal); }
.s5 { fill: var(--rose); background: var(--rose); }
.s6 { fill: var(--olive); background: var(--olive); }
.s7 { fill: var(--brown); background: var(--brown); }
.l0 { fill: none; stroke: var(--blue); stroke-width: 1.8; }
.l1 { fill: none; stroke: var(--orange); stroke-width: 1.8; }
.l2 { fill: none; stroke: var(--green); stroke-width: 1.8; }
.l3 { fill: none; stroke: var(--violet); stroke-width: 1.8; }
.l4 { fill: none; stroke: var(--teal); stroke-width: 1.8; }
.l5 { fill: none; stroke: var(--rose); stroke-width: 1.8; }
.l6 { fill: none; stroke: var(--olive); stroke-width: 1.8; }
.l7 { fill: none; stroke: var(--brown); stroke-width: 1.8; }
.band { fill: var(--rule); opacity: .35; }
svg .on { fill: var(--card); }
dl.pairs { display: grid; grid-template-columns: max-content 1fr; gap: 4px 18px; font-size: 13px; }
dl.pairs dt { color: var(--soft); }
dl.pairs dd { margin: 0; overflow-wrap: anywhere; }
details pre { overflow-x: auto; background: var(--card); border: 1px solid var(--rule); padding: 12px;
  border-radius: 8px; font-size: 12px; }
"""
