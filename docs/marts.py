"""Writes docs/marts.md, the dictionary of the marts, from the YAML beside the models: ``make docs``."""

from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).resolve().parents[1]
TARGET = PROJECT / "docs" / "marts.md"
PUBLIC = ("dim_", "fct_", "rpt_")
HEAD = """# The marts

What BI tools read: schema `marts`. Contracts keep the columns, and the same texts are in the database's comments.
This page is made by `make docs` from the YAML beside each model.
"""


def render() -> str:
    """Return the page: a section a folder of models, in the order that data walks."""
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
    TARGET.write_text(render(), encoding="utf-8")
