"""The demo data's planted truth against what the marts credit, campaign by campaign.

Needs a database that holds the demo data, as ``make run`` leaves it. Planted are the conversions that an exposure
caused within the campaign's lookback; credited are those that each model gives the campaign, caused or not: one
that would have happened anyway is credited too where it follows an exposure. Lift estimates the caused ones.

    python benchmarks/attribution_truth.py
"""

import json

from rich.console import Console
from rich.table import Table

from earmark.demo.truth import TRUTH_FILE
from earmark.settings import load_settings
from earmark.warehouse.server import resolve

MODELS = ("first_touch", "last_touch", "linear", "position_based", "time_decay", "shapley", "markov")


def main() -> None:
    """Print the table."""
    settings = load_settings()
    truth = json.loads((settings.home / "landing" / TRUTH_FILE).read_text(encoding="utf-8"))
    with resolve(settings).connect(autocommit=True) as connection:
        credited = {
            row[:3]: row[3]
            for row in connection.execute(
                "select tenant_id, campaign_id, model, sum(conversions) from marts.rpt_model_comparison"
                " where campaign_id is not null group by 1, 2, 3"
            )
        }
        lift = {
            row[:2]: row[2:]
            for row in connection.execute(
                "select tenant_id, campaign_id, modelled_incremental_conversions, modelled_low, modelled_high"
                " from marts.rpt_campaign_lift where control = 'unexposed'"
            )
        }
    table = Table("campaign", "planted", "by chance", *MODELS, "lift (95 %)", title="Planted against credited")
    totals = dict.fromkeys(("planted", "by chance", *MODELS, "lift"), 0.0)
    for campaign in truth["campaigns"]:
        key = (campaign["tenant"], campaign["campaign_id"])
        row = {
            "planted": campaign["incremental_in_lookback"],
            "by chance": campaign["baseline_after_exposure"],
            **{model: float(credited.get((*key, model), 0)) for model in MODELS},
        }
        estimate, low, high = lift.get(key, (None, None, None))
        row["lift"] = float(estimate or 0)
        for name, figure in row.items():
            totals[name] += figure
        shown = (
            "-" if estimate is None else f"{estimate:.0f}" + ("" if low is None else f" ({low:.0f} to {high:.0f})")
        )
        table.add_row(" ".join(key), *(f"{figure:.1f}" for name, figure in row.items() if name != "lift"), shown)
    table.add_row("all", *(f"{figure:.1f}" for figure in totals.values()))
    Console(width=200).print(table)


if __name__ == "__main__":
    main()
