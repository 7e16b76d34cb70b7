"""The pages about results in a checkout, rendered from the stored studies.

``results/results.md.j2`` becomes ``docs/results.md``, and ``results/readme.md.j2`` the part of the README between its
markers. The templates hold words; every number of a training is an expression over the stored studies.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import jinja2

from harness.records import metric_name
from harness.reporting import paper_numbers
from harness.reporting.cells import number, percent
from harness.reporting.estimates import agreement
from harness.reporting.markdown import markdown_table
from harness.reporting.probe import RESULTS_FILE, probe_tables
from harness.reporting.returns import RETURNS_FILE
from harness.reporting.stored import Study, StudyError, text
from harness.reporting.tables import asm_length_tables

MARKERS = "<!-- results -->", "<!-- /results -->"


def rendered_docs(results: Path) -> dict[Path, str]:
    """The text of ``docs/results.md`` and of ``README.md`` in the checkout that `results` is in.

    Args:
        results: folder with a folder for each study, and the two templates.

    Raises:
        StudyError: if a template or the README's markers are missing, a study cannot be read, or a template uses data
            that is not stored.
    """
    folders = sorted(path for path in results.iterdir() if path.is_dir()) if results.is_dir() else []
    stored = [path for path in folders if (path / RETURNS_FILE).is_file() or (path / RESULTS_FILE).is_file()]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(results), undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals.update(
        studies={folder.name: Study.read(folder) for folder in stored},
        paper=paper_numbers,
        markdown=markdown_table,
        asm_lengths=lambda study: next(asm_length_tables(study.summary, study.meta))[1],
        probed=lambda study: next(probe_tables(study.probes, with_paper=True))[1],
        orders=lambda study: agreement(study.table).assign(estimate=lambda rows: rows["metric"].map(metric_name)),
        read_json=lambda path: json.loads((results / path).read_text(encoding="utf-8")),
    )
    environment.filters.update(
        interval=text, percent=percent, number=number, whole=lambda value: f"{value:,.0f}", listed=_listed
    )
    readme = results.resolve().parent / "README.md"
    try:
        page, block = (
            re.sub(r"\n{3,}", "\n\n", environment.get_template(name).render()).strip()
            for name in ("results.md.j2", "readme.md.j2")
        )
    except jinja2.TemplateError as error:
        raise StudyError(f"the results in {results} cannot be rendered: {type(error).__name__}: {error}") from error
    before, opening, rest = readme.read_text(encoding="utf-8").partition(MARKERS[0])
    _, closing, after = rest.partition(MARKERS[1])
    if not closing:
        raise StudyError(f"{readme} has no results to replace: put {MARKERS[0]} and {MARKERS[1]} around them")
    note = "<!-- rendered by python -m harness.report --docs results; edit results/{}.j2 -->\n"
    return {
        readme.parent / "docs" / "results.md": note.format("results.md") + page + "\n",
        readme: f"{before}{opening}\n{note.format('readme.md')}{block}\n{closing}{after}",
    }


def _listed(names: list[str]) -> str:
    """Names in a sentence."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]])) or "none"
