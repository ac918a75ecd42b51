"""Sections of text, tables and pictures, as Markdown and as one page of HTML. Text is text: nothing in it becomes markup."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass

from trainer.charts import Svg

_LONGEST = 300


@dataclass(frozen=True)
class Section:
    """A heading, a sentence, pictures, a table. A column without a title holds pictures, which Markdown leaves out."""

    title: str
    note: str = ""
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    charts: Sequence[tuple[str, Svg]] = ()


def markdown(title: str, parts: Sequence[Section]) -> str:
    """The report for whoever reads it in a terminal or a repository."""
    blocks = [f"# {_plain(title)}"]
    for part in parts:
        blocks += [
            f"## {part.title}",
            *([_plain(part.note)] if part.note else []),
            *([markdown_table(part)] if part.rows else []),
        ]
    return "\n\n".join(blocks) + "\n"


def markdown_table(section: Section) -> str:
    shown = [at for at, name in enumerate(section.header) if name]
    rows = [
        [section.header[at] for at in shown],
        ["---"] * len(shown),
        *([_plain(row[at]) for at in shown] for row in section.rows),
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _plain(text: str) -> str:
    return re.sub(r"([\\`*\[\]|])", r"\\\1", html.escape(_short(text), quote=False))


def _short(text: str) -> str:
    # Also without line breaks, control characters and halves of surrogate pairs.
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    return printable if len(printable) <= _LONGEST else printable[: _LONGEST - 1] + "…"


def page(title: str, parts: Sequence[Section]) -> str:
    """The report as one HTML file without scripts, and without anything from elsewhere."""
    body = "".join(_html_section(part) for part in parts)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{_escaped(title)}</title><style>{_STYLE}</style></head>\n<body><main><h1>{_escaped(title)}</h1>{body}</main></body></html>\n"
    )


def _html_section(part: Section) -> str:
    note = f"<p>{_escaped(part.note)}</p>" if part.note else ""
    charts = "".join(f"<figure>{chart}<figcaption>{_escaped(name)}</figcaption></figure>" for name, chart in part.charts)
    head = "".join(f"<th>{_escaped(name)}</th>" for name in part.header)
    rows = "".join(f"<tr>{''.join(f'<td>{_escaped(cell)}</td>' for cell in row)}</tr>\n" for row in part.rows)
    body = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>" if part.rows else ""
    return f"<section><h2>{_escaped(part.title)}</h2>{note}<div>{charts}</div><div>{body}</div></section>\n"


def _escaped(text: str) -> str:
    return text if isinstance(text, Svg) else html.escape(_short(text))


_STYLE = """
:root{--ink:#1d2330;--soft:#667085;--line:#e4e7ec;--page:#fff;--ground:#eef1f5;
--bar:#4c7bd9;--right:#3a9d6e;--wrong:#d9594c;color-scheme:light dark}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ef;--soft:#98a2b3;--line:#2c3340;--page:#14181f;--ground:#232a35}}
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:1080px;margin:auto;padding:24px}
h1{font-size:26px}h2{font-size:18px;margin:40px 0 4px}p{color:var(--soft);margin:0 0 12px}
section>div{overflow-x:auto}
table{border-collapse:collapse;font-size:14px}
th,td{text-align:left;padding:5px 14px 5px 0;border-bottom:1px solid var(--line);vertical-align:top}
th{font-weight:600;color:var(--soft);white-space:nowrap}
td{font-variant-numeric:tabular-nums;overflow-wrap:anywhere;min-width:3em}
figure{display:inline-block;margin:8px 24px 8px 0}figcaption{color:var(--soft);font-size:13px}
svg{max-width:100%;height:auto;display:block}svg text{font:11px system-ui,sans-serif;fill:var(--ink)}
.ground{fill:var(--ground)}.bar{fill:var(--bar)}.whisker{stroke:var(--ink);stroke-width:2}
.mark{stroke:var(--wrong);stroke-width:2}.right{fill:var(--right)}.wrong{fill:var(--wrong)}
.point{fill:var(--bar);fill-opacity:.7}.diagonal{stroke:var(--soft);stroke-dasharray:4}.axis{stroke:var(--soft);fill:none}
polyline{fill:none}.each{stroke:var(--bar);stroke-opacity:.35}.smooth{stroke:var(--bar);stroke-width:2}
"""
