"""What was planted and what was written: the answers that a run over the demo data can be held against.

Only plain records live here; nothing here draws a random number or writes a file.
"""

from dataclasses import asdict, dataclass
from datetime import date
from typing import Any, Final

TRUTH_FILE: Final = ".demo_truth.json"


@dataclass(frozen=True, slots=True)
class FolderTruth:
    """What stands in the files of one folder of one tenant for one dataset.

    ``rows`` are the good rows, each counted once. ``late`` of them stand in the file of a later day than their
    own. ``duplicates`` are exact copies of good rows in another file, ``malformed`` rows that no loader can
    take. A file therefore holds ``written`` = rows + duplicates + malformed rows in all.
    """

    tenant: str
    folder: str
    dataset: str
    files: int
    rows: int
    late: int = 0
    duplicates: int = 0
    malformed: int = 0

    @property
    def written(self) -> int:
        """All rows of the files, good or not."""
        return self.rows + self.duplicates + self.malformed


@dataclass(frozen=True, slots=True)
class CampaignTruth:
    """What a campaign really did.

    ``exposures`` are deliveries of the whole ad to a person: baked in, the bytes up to the ad's end in the first
    request of an episode by a listener (bots, repeats and resumed requests are none); DAI, an impression with
    all bytes of the ad. ``reach`` counts the households behind them. Every exposure caused a conversion with
    probability ``lift_per_exposure``; ``incremental_conversions`` are those that happened before the data ends,
    ``incremental_in_lookback`` those within the campaign's lookback of the exposure that caused them.
    ``baseline_conversions`` would have happened without any ad: all of the sponsor's, over the whole period and
    all households, with an action that the campaign counts (two campaigns of one sponsor show the same ones).
    ``baseline_after_exposure`` of them came within the lookback after an exposure of their household: what a
    rule that credits whatever follows an exposure credits wrongly. A conversion is one order, signup, lead or
    install, however many rows report it; refunds are none.
    """

    tenant: str
    campaign_id: str
    sponsor_id: str
    name: str
    delivery: str
    conversion_actions: tuple[str, ...]
    lookback_days: float
    starts_on: date
    ends_on: date
    lift_per_exposure: float
    exposures: int
    exposures_baked_in: int
    exposures_dai: int
    reach: int
    incremental_conversions: int
    incremental_in_lookback: int
    incremental_revenue: float
    baseline_conversions: int
    baseline_after_exposure: int
    promo_code_orders: int
    promo_code_and_pixel_orders: int


@dataclass(frozen=True, slots=True)
class DemoTruth:
    """The whole truth about a folder of demo data; ``.demo_truth.json`` in that folder holds the same.

    The period is the UTC days ``start`` to ``end``, both included.
    """

    seed: int
    start: date
    end: date
    tenants: tuple[str, ...]
    folders: tuple[FolderTruth, ...]
    campaigns: tuple[CampaignTruth, ...]

    def total(self, dataset: str, tenant: str | None = None) -> FolderTruth:
        """Add up the folders of a dataset, of one tenant or of all."""
        chosen = [
            folder for folder in self.folders if folder.dataset == dataset and tenant in (None, folder.tenant)
        ]
        return FolderTruth(
            tenant=tenant or "",
            folder="",
            dataset=dataset,
            files=sum(folder.files for folder in chosen),
            rows=sum(folder.rows for folder in chosen),
            late=sum(folder.late for folder in chosen),
            duplicates=sum(folder.duplicates for folder in chosen),
            malformed=sum(folder.malformed for folder in chosen),
        )

    def as_dict(self) -> dict[str, Any]:
        """Return what ``.demo_truth.json`` holds; dates are left as they are."""
        return asdict(self)
