"""What a series of loads did, added up by dataset: for people, for JSON and for Dagster's metadata."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from earmark.ingestion.landing import FileResult
from earmark.ingestion.load import Counts, DatasetReport


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSummary(Counts):
    """The loads of one dataset. ``refused``: why files were not loaded."""

    files: int = 0
    load_ids: tuple[int, ...] = ()
    refused: tuple[str, ...] = ()

    def __add__(self, report: DatasetReport) -> "DatasetSummary":
        """Add a load."""
        times = [self.first_event_at, self.last_event_at, report.first_event_at, report.last_event_at]
        known = [at for at in times if at is not None]
        return replace(
            self,
            files=self.files + 1,
            load_ids=(*self.load_ids, report.load_id),
            read=self.read + report.read,
            loaded=self.loaded + report.loaded,
            duplicate=self.duplicate + report.duplicate,
            rejected=self.rejected + report.rejected,
            first_event_at=min(known, default=None),
            last_event_at=max(known, default=None),
        )


@dataclass(slots=True)
class LoadSummary:
    """All files of a series of loads: loaded, loaded before, or refused (the messages).

    ``all_rejected``: files of which no row could be loaded, as each was rejected.
    """

    files: int
    loaded_before: int
    refused: list[str]
    datasets: dict[str, DatasetSummary]
    all_rejected: list[str] = field(default_factory=list)

    @property
    def load_ids(self) -> tuple[int, ...]:
        """The loads, of all datasets."""
        return tuple(load_id for total in self.datasets.values() for load_id in total.load_ids)

    @classmethod
    def of(cls, results: Iterable[FileResult]) -> "LoadSummary":
        """Add up what became of the files."""
        summary = cls(files=0, loaded_before=0, refused=[], datasets={})
        for result in results:
            summary.files += 1
            if result.report is None:
                message = result.refused or result.uri
                summary.refused.append(message)
                if result.dataset is not None:
                    before = summary.datasets.get(result.dataset, DatasetSummary())
                    summary.datasets[result.dataset] = replace(before, refused=(*before.refused, message))
                continue
            summary.loaded_before += result.report.already_loaded_as is not None
            reports = result.report.datasets
            if any(report.rejected for report in reports) and not any(
                report.loaded or report.duplicate for report in reports
            ):
                summary.all_rejected.append(result.uri)
            for report in reports:
                summary.datasets[report.dataset] = summary.datasets.get(report.dataset, DatasetSummary()) + report
        return summary

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        """Say it in a line."""
        if not self.files:
            return "no new files"
        rows = {
            name: sum(getattr(total, name) for total in self.datasets.values())
            for name in ("loaded", "duplicate", "rejected")
        }
        parts = [f"{self.files} files", *(f"{count:,} rows {name}" for name, count in rows.items())]
        if self.loaded_before:
            parts.append(f"{self.loaded_before} files were loaded before")
        if self.refused:
            parts.append(f"{len(self.refused)} files refused")
        return ", ".join(parts)
