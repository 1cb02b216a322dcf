"""Writes what the docs repeat of the project, from where it is said: ``make docs``.

docs/marts.md is from the YAML beside the models, the rules of docs/counting.md from ``seeds/counting_rules.csv``.
"""

import csv
import re
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).resolve().parents[1]
MARTS = PROJECT / "docs" / "marts.md"
COUNTING = PROJECT / "docs" / "counting.md"
RULES = re.compile(r"(?<=<!-- rules: made by make docs -->\n).*?(?=<!-- end of rules -->)", re.DOTALL)
PUBLIC = ("dim_", "fct_", "rpt_")
HEAD = """# The marts

What BI tools read: schema `marts`. Contracts keep the columns, and the same texts are in the database's comments.
This page is made by `make docs` from the YAML beside each model.
"""


def pages() -> dict[Path, str]:
    """Return the pages with what they should hold."""
    return {MARTS: marts(), COUNTING: RULES.sub(lambda _: rules(), COUNTING.read_text(encoding="utf-8"))}


def rules() -> str:
    """Return the table of the counting rules."""
    with (PROJECT / "seeds" / "counting_rules.csv").open(encoding="utf-8", newline="") as file:
        rows = [f"| {row['stage']} | `{row['code']}` | {row['text']} |" for row in csv.DictReader(file)]
    return "\n".join(["| step | outcome | |", "|---|---|---|", *rows]) + "\n"


def marts() -> str:
    """Return the dictionary: a section a folder of models, in the order that data walks."""
    folders = yaml.safe_load((PROJECT / "dbt_project.yml").read_text(encoding="utf-8"))["models"]["earmark"]
    groups = yaml.safe_load((PROJECT / "models" / "_groups.yml").read_text(encoding="utf-8"))["groups"]
    about = {group["name"]: group["description"] for group in groups}
    parts = [HEAD]
    for folder in folders:
        marts = [
            read(path)
            for prefix in PUBLIC
            for path in sorted((PROJECT / "models" / folder).glob(f"{prefix}*.yml"))
        ]
        if marts:
            parts += [f"## {folder}\n\n{about[folder]}\n", *map(section, marts)]
    return "\n".join(parts)


def read(path: Path) -> dict[str, Any]:
    """Return the model that a file is about."""
    (model,) = yaml.safe_load(path.read_text(encoding="utf-8"))["models"]
    return dict(model)


def section(model: dict[str, Any]) -> str:
    """Return what there is to know of a mart."""
    rows = [f"| `{column['name']}` | {column['data_type']} | {cell(column)} |" for column in model["columns"]]
    table = "\n".join(["| column | type | |", "|---|---|---|", *rows])
    return f"### {model['name']}\n\n{model['description'].strip()}\n\n{table}\n"


def cell(column: dict[str, Any]) -> str:
    """Return a description as a table takes it."""
    return " ".join(str(column["description"]).split()).replace("|", "\\|")


if __name__ == "__main__":
    for page, text in pages().items():
        page.write_text(text, encoding="utf-8")
