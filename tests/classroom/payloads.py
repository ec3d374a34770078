"""What a student may write into Markdown so that it acts in the reader's browser. Each calls `hit(number)` or asks for
`/hit-number`, if it can."""

import base64

from nbformat.v4 import new_code_cell, new_markdown_cell, new_output, new_raw_cell

ATTACKS = [
    "<script>hit(NUMBER)</script>",
    "<img src=x onerror=hit(NUMBER)>",
    "text <svg onload=hit(NUMBER)><animate onbegin=hit(NUMBER) attributeName=x dur=1s>",
    '<iframe srcdoc="<script>parent.hit(NUMBER)</script>"></iframe>',
    '<iframe src="javascript:parent.hit(NUMBER)"></iframe>',
    "[click](javascript:hit(NUMBER))",
    "<javascript:hit(NUMBER)>",
    "[click][ref]\n\n[ref]: javascript:hit(NUMBER) 'title'",
    '[click](data:text/html;base64,PHNjcmlwdD5vcGVuZXIuaGl0KDUpPC9zY3JpcHQ+ "x")',
    "![picture](/hit-NUMBER)",
    '![a" onerror="hit(NUMBER)](x "b\' onload=\'hit(NUMBER)")',
    "<style>body {background: url(/hit-NUMBER)} @import '/hit-NUMBER';</style>",
    '<p style="background: url(/hit-NUMBER)">styled</p>',
    '<link rel=stylesheet href="/hit-NUMBER"><base href="/hit-NUMBER/">',
    '<meta http-equiv=refresh content="0;url=/hit-NUMBER">',
    '<object data="/hit-NUMBER"></object><embed src="/hit-NUMBER"><video src="/hit-NUMBER" onerror=hit(NUMBER)>',
    '<form action="/hit-NUMBER"><input autofocus onfocus=hit(NUMBER)><button>send</button></form>',
    '<a href="/hit-NUMBER" ping="/hit-NUMBER" onclick=hit(NUMBER)>here</a>',
    "<img src=x onerror=hit(NUMBER)//",
    "</div></div></body><script>hit(NUMBER)</script>",
    '<div class="answer"><script>hit(NUMBER)</script><img src=x onerror=hit(NUMBER)></div>',
    '<div class="answer"><p onmouseover=hit(NUMBER) class="full-credit" id="why">x</p>\n\n<script>hit(NUMBER)</script>',
    "```mermaid\n<img src=x onerror=hit(NUMBER)>\n```",
    '```x" onclick="hit(NUMBER)\n<script>hit(NUMBER)</script>\n```',
    "`` <script>hit(NUMBER)</script> ``",
    "$<img src=x onerror=hit(NUMBER)>$ and $$<script>hit(NUMBER)</script>$$",
    "\\begin{x}<script>hit(NUMBER)</script>\\end{x}",
    "| a | <script>hit(NUMBER)</script> |\n|---|---|\n| <img src=x onerror=hit(NUMBER)> | b |",
    "# <img src=x onerror=hit(NUMBER)> heading",
    "&lt;script&gt;hit(NUMBER)&lt;/script&gt; &#60;img src=x onerror=hit(NUMBER)&#62;",
    "<!--><script>hit(NUMBER)</script>--> <![CDATA[<script>hit(NUMBER)</script>]]> <?php <script>hit(NUMBER)</script>",
    '<noscript><p title="</noscript><img src=x onerror=hit(NUMBER)>">',
    "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=x onerror=hit(NUMBER)&gt;'>",
    "<sc<script>ript>hit(NUMBER)</sc</script>ript>",
    "<details open ontoggle=hit(NUMBER)>x</details>",
    'https://example.org/"onmouseover="hit(NUMBER)"',
]
HONEST = r"""# Why?

A *soft* target says **more**: $a < b$ and `x < y & z`, not <b>less</b>.

| class | share |
|:------|------:|
| 3     | 0.7   |
| 8     | 0.2   |

$$
L = \sum_i p_i \ln \frac{p_i}{q_i}
$$

```python
def loss(p, q):

    return (p * (p / q).log()).sum() if p < 1 else 0
```

1. first
2. second, see https://example.org/paper

> quoted

![plot](attachment:plot.png)
"""
PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def attacks() -> list[str]:
    """The attacks, numbered."""
    return [attack.replace("NUMBER", str(number)) for number, attack in enumerate(ATTACKS)]


def poison(notebook):
    """The notebook with an attack in everything that a student may write: cells, outputs, metadata, attachments."""
    script = "<script>hit(900)</script><img src=x onerror=hit(901)>"
    quote = '"><script>hit(902)</script>'
    data = {"text/html": script, "image/svg+xml": f"<svg>{script}</svg>", "application/javascript": "hit(903)"}
    evil = base64.b64encode(b"<svg xmlns='http://www.w3.org/2000/svg' onload='parent.hit(904)'/>").decode()
    for cell in notebook.cells:
        cell.metadata.update(tags=[quote], name=quote, trusted=quote, slideshow={"slide_type": quote})
        if cell.cell_type == "code":
            cell.source = f"# {script}\n{cell.source}"
            cell.outputs = [new_output("display_data", data), new_output("stream", name="stdout", text=script)]
    notebook.cells[-1].source = "\n\n".join(attacks())
    shown = new_markdown_cell("![a](attachment:a.png) ![b](attachment:b.svg) ![c](attachment:c.html)")
    shown["attachments"] = {
        "a.png": {"image/png": f'{PICTURE}" onerror="hit(905)'},
        "b.svg": {"image/svg+xml": evil},
        "c.html": {"text/html": base64.b64encode(script.encode()).decode()},
    }
    notebook.cells += [*map(new_markdown_cell, attacks()), shown]
    notebook.cells += [
        new_raw_cell(script, metadata={"raw_mimetype": kind}) for kind in ("text/html", "", "text/markdown")
    ]
    prints = f"print({script!r})\nprint('\\x1b[31m{script}')\nraise ValueError({script!r})"
    notebook.cells += [new_code_cell(prints), new_code_cell("raise type('<b onclick=hit(906)>', (Exception,), {})()")]
    notebook.cells[0].id = "x" * 3
    notebook.metadata.update(title=quote, authors=[{"name": quote}], widgets={"application/x": {"state": script}})
    notebook.metadata.language_info = {"name": quote, "pygments_lexer": quote}
    notebook.metadata.kernelspec = {"name": quote, "display_name": quote, "language": quote}
    return notebook
