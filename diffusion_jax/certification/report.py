"""A certificate as one HTML page without scripts."""

import html

from diffusion_jax.certification.certificate import Certificate
from diffusion_jax.certification.law import FAILS, HOLDS, UNJUDGED, WARNS, Law

STYLE = """\
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem;
  color-scheme: light dark; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: 0.3rem 0.6rem; border-bottom: 1px solid #8885;
  vertical-align: top; }
.holds { color: #2a8; } .fails { color: #d33; font-weight: bold; } .warns { color: #c80; }
"""
CLASSES = {HOLDS: "holds", FAILS: "fails", WARNS: "warns", UNJUDGED: ""}
HEAD = "<tr><th>verdict<th>function<th>law<th>measured<th>allowed<th>note"


def page(certificate: Certificate, title: str) -> str:
    """Return the page."""
    rows = "\n".join(_row(law) for law in certificate.laws)
    counts = ", ".join(
        f"{sum(law.verdict == verdict for law in certificate.laws)} {verdict}"
        for verdict in CLASSES
    )
    name = html.escape(title)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{name}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style>\n'
        f"<h1>{name}</h1>\n<p>{counts}</p>\n<table>\n{HEAD}\n{rows}\n</table>\n</html>\n"
    )


def _row(law: Law) -> str:
    cells = (law.subject, law.statement, law.measured, law.allowed, law.note)
    verdict = f'<td class="{CLASSES[law.verdict]}">{law.verdict}'
    return f"<tr>{verdict}{''.join(f'<td>{html.escape(cell)}' for cell in cells)}"
