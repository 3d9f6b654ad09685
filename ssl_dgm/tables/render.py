"""Tables as text: a run's closing table, and a grid as Markdown, LaTeX (booktabs) and HTML."""

import html
import math
import re
import statistics
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from jinja2 import Environment
from tabulate import tabulate

from ssl_dgm import records

if TYPE_CHECKING:
    from ssl_dgm.tables.grid import Grid

TEX = str.maketrans(
    {
        "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
        "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
        "|": r"\textbar{}", "`": r"\textasciigrave{}", "[": "{[}", "*": "{*}",  # the last two: \\ would take them
        "±": r"$\pm$", "−": r"$-$", "×": r"$\times$",
    }
)  # fmt: skip
TEX_PAGE = r"""% Needs \usepackage{booktabs,graphicx}.
\begin{table}
\centering
\caption{<< grid.title | tex >>. << grid.caption | join(" ") | tex >>}
\label{tab:<< grid.name >>}
\medskip\small
\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{% no wider than the page
\begin{tabular}{l<< "r" * (grid.header | length - 1) >>}
\toprule
<< grid.header | map("tex") | join(" & ") >> \\
\midrule
<% for line in grid.lines -%>
<% if line.kind == "section" -%>
\midrule
\multicolumn{<< grid.header | length >>}{l}{\textit{<< line.label | tex >>}} \\
<% else -%>
<% set around = [loop.previtem, loop.nextitem] | select | map(attribute="kind") | list -%>
<% if line.kind == "row" and not loop.first and "detail" in around and around[0] != "section" -%>
\addlinespace
<% endif -%>
<< "\\quad\\footnotesize " if line.kind == "detail" >><< line.label | tex >>
<%- for text in line.texts %> & << "\\footnotesize " if line.kind == "detail" and text >><< text | tex >><% endfor %> \\
<% endif -%>
<% endfor -%>
\bottomrule
\end{tabular}}
<% if grid.notes -%>
\par\medskip
\begin{minipage}{\linewidth}\footnotesize
<% for note in grid.notes -%>
{[}<< loop.index >>] << note | tex >>\par
<% endfor -%>
\end{minipage}
<% endif -%>
\end{table}
"""
HTML_PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title><< grids[0].title | html >></title>
<style>
body { font: 16px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 68rem; padding: 0 1rem; color: #1a1a1a }
table + table, ol + table { margin-top: 2.5rem }
table { border-collapse: collapse; border-top: 2px solid; border-bottom: 2px solid; width: 100% }
th, td { padding: .15rem .7rem; text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums }
th:first-child, td:first-child { text-align: left }
thead th { border-bottom: 1px solid }
tbody th { font-weight: normal }
tr.detail + tr.row > *, tr.row + tr.row:has(+ tr.detail) > * { padding-top: .5rem }
tr.detail > * { color: #555; font-size: .85rem }
tr.detail th { padding-left: 2rem }
tr.section th { border-top: 1px solid #999; padding-top: .6rem; font-style: italic }
caption { text-align: left; padding-bottom: .8rem }
ol { color: #555; font-size: .9rem; padding-left: 2rem }
li { overflow-wrap: anywhere }
li::marker { content: "[" counter(list-item) "] " }
</style>
<% for grid in grids -%>
<table>
<caption><b><< grid.title | html >></b><br><< grid.caption | join(" ") | html >></caption>
<thead><tr><% for text in grid.header %><th scope="col"><< text | html >></th><% endfor %></tr></thead>
<tbody>
<% for line in grid.lines -%>
<% if line.kind == "section" -%>
<tr class="section"><th colspan="<< grid.header | length >>"><< line.label | html >></th></tr>
<% else -%>
<tr class="<< line.kind >>"><th scope="row"><< line.label | html >></th>
<%- for text in line.texts %><td><< text | html >></td><% endfor %></tr>
<% endif -%>
<% endfor -%>
</tbody>
</table>
<% if grid.notes -%>
<ol>
<% for note in grid.notes -%>
<li><< note | html >></li>
<% endfor -%>
</ol>
<% endif -%>
<% endfor -%>
</html>
"""


def mean_and_spread(values: Sequence[float], scale: float = 1.0, digits: int = 2, of: int | None = None) -> str:
    """'3.33 ± 0.14 (n = 10)': mean and standard deviation over seeds (ddof = 1); 'n = 7 of 10' where some lack."""
    if not values:
        return "-"
    scaled = [scale * value for value in values]
    has_spread = len(scaled) > 1 and all(map(math.isfinite, scaled))
    spread = f" ± {statistics.stdev(scaled):.{digits}f}" if has_spread else ""
    n = f"{len(scaled)} of {of}" if of else len(scaled)
    return f"{statistics.fmean(scaled):z.{digits}f}{spread} (n = {n})"


def closing_table(lines: Iterable[tuple[str, str, Sequence[float]]]) -> str:
    """The table at the end of a run: (model, metric, values of the seeds); shares become percentages."""
    cells = []
    for model, metric, values in lines:
        unit = records.unit(metric)
        name = metric.replace("/", " ").replace("_", " ") + (f" ({unit})" if unit else "")
        cells.append((model, name, mean_and_spread(values, 100 if unit == "%" else 1)))
    return tabulate(cells, headers=("model", "metric", "mean ± sd over seeds"), tablefmt="simple")


def to_markdown(*grids: "Grid") -> str:
    """Pipe tables, each with its caption above and its notes below."""
    return "\n".join(map(_one_in_markdown, grids))


def _one_in_markdown(grid: "Grid") -> str:
    cells = []
    for line in grid.lines:
        label = {"row": "**{}**", "section": "*{}*", "detail": "· {}"}[line.kind].format(in_pipes(line.label))
        cells.append([label, *map(in_pipes, line.texts)])
    align = ("left", *("right" for _ in grid.header[1:]))
    body = tabulate(
        cells, headers=[*map(in_pipes, grid.header)], tablefmt="pipe", disable_numparse=True, colalign=align
    )
    notes = "".join(f"\n[{k}] {_markdown(note)}\n" for k, note in enumerate(grid.notes, start=1))
    return f"**{_markdown(grid.title)}.** {_markdown(' '.join(grid.caption))}\n\n{body}\n{notes}"


def _markdown(text: str) -> str:
    """With backslashes before what Markdown would take for its own; the rest is left as people read it."""
    return re.sub(r"[\\`*~$]|(?<![^\W_])_|_(?![^\W_])|<(?=[\w/!?])|&(?=#?\w+;)|\](?=[(\[])", r"\\\g<0>", text)


def in_pipes(text: str) -> str:
    """A text as a cell of a pipe table shows it."""
    return _markdown(text).replace("|", "\\|")


def to_latex(*grids: "Grid") -> str:
    """Table environments for booktabs."""
    return "\n".join(_render(TEX_PAGE, grid=grid) for grid in grids)


def to_html(*grids: "Grid") -> str:
    """A page of its own."""
    return _render(HTML_PAGE, grids=grids)


def _render(page: str, **names: Any) -> str:
    environment = Environment(
        block_start_string="<%", block_end_string="%>", variable_start_string="<<", variable_end_string=">>",
        comment_start_string="<#", comment_end_string="#>",
    )  # fmt: skip
    environment.filters |= {"tex": _tex, "html": html.escape}
    return environment.from_string(page).render(**names).rstrip() + "\n"


def _tex(text: str) -> str:
    """As it stands: two hyphens stay two, since they are part of an option's name."""
    return re.sub(r"([-',])(?=\1)", r"\1{}", text.translate(TEX))
