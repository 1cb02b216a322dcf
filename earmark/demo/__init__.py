"""A landing folder of made-up data that behaves like the real thing, with a planted truth to find.

``write_demo_data`` draws tenants, shows, listeners, advertising and sales, and writes them as the files that a
real deployment would receive: server logs, feeds, exports; late, repeated and broken rows among them.
``DemoTruth`` says what was planted. Nothing here loads anything; numpy and polars are only imported to write.
"""

import json
from datetime import date, timedelta
from pathlib import Path
from typing import Final

from earmark.demo.truth import TRUTH_FILE, CampaignTruth, DemoTruth, FolderTruth

__all__ = ["TRUTH_FILE", "CampaignTruth", "DemoTruth", "FolderTruth", "write_demo_data"]

LAST_DAY: Final = date(2026, 6, 30)


def write_demo_data(
    root: Path,
    *,
    days: int = 60,
    events: int = 200_000,
    tenants: int = 2,
    seed: int = 7,
    end: date = LAST_DAY,
) -> DemoTruth:
    """Write a landing folder of about ``events`` listener events in the ``days`` UTC days up to ``end``.

    The same arguments write the same bytes, given the same versions of numpy, polars and zlib. ``root`` is made
    where it is missing. ``root/.demo_truth.json`` is written last and holds the truth that is returned.

    Raises:
        ValueError: days, events or tenants are too few.
        FileExistsError: there are files in ``root`` already.

    """
    if days < 1 or tenants < 1 or events < 100 * tenants:
        raise ValueError(
            f"demo data needs at least one day, one tenant and 100 events a tenant; "
            f"days={days}, tenants={tenants}, events={events} were asked for"
        )
    if root.exists() and any(root.iterdir()):
        raise FileExistsError(f"{root}: is not empty; demo data is written into a folder of its own")

    import numpy as np

    from earmark.demo.catalog import plan_tenant
    from earmark.demo.files import csv_text, write_tenant, write_text
    from earmark.demo.listening import listen
    from earmark.demo.responses import respond

    start = end - timedelta(days=days - 1)
    # The first tenant is the largest.
    shares = [1 / (number + 1) ** 0.5 for number in range(tenants)]
    names: list[tuple[str, str]] = []
    folders: list[FolderTruth] = []
    campaigns: list[CampaignTruth] = []
    for number, share in enumerate(shares):
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, number])))
        tenant = plan_tenant(number, start, days, rng)
        listening = listen(tenant, start, days, round(events * share / sum(shares)), rng)
        responses = respond(tenant, listening, start, days, rng)
        folder = root / tenant.tenant_id
        folders += write_tenant(folder, tenant, listening, responses, start, days, rng)
        names.append((tenant.tenant_id, tenant.name))
        campaigns += responses.campaigns
    write_text(root / "tenants.csv", csv_text(("tenant_id", "name"), names))
    truth = DemoTruth(
        seed=seed,
        start=start,
        end=end,
        tenants=tuple(tenant_id for tenant_id, _ in names),
        folders=tuple(folders),
        campaigns=tuple(campaigns),
    )
    write_text(root / TRUTH_FILE, json.dumps(truth.as_dict(), indent=2, default=str) + "\n")
    return truth
