"""What a series of loads did, added up by dataset: for people, for JSON and for Dagster's metadata."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from earmark.ingestion.landing import FileResult


@dataclass(slots=True)
class DatasetSummary:
    """The loads of one dataset: read = loaded + duplicate + rejected. ``refused``: why files were not."""

    files: int = 0
    read: int = 0
    loaded: int = 0
    duplicate: int = 0
    rejected: int = 0
    first_event_at: datetime | None = None
    last_event_at: datetime | None = None
    load_ids: list[int] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


@dataclass(slots=True)
class LoadSummary:
    """All files of a series of loads: loaded, loaded before, or refused (the messages)."""

    files: int
    loaded_before: int
    refused: list[str]
    datasets: dict[str, DatasetSummary]

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
                    summary.datasets.setdefault(result.dataset, DatasetSummary()).refused.append(message)
                continue
            summary.loaded_before += result.report.already_loaded_as is not None
            for report in result.report.datasets:
                total = summary.datasets.setdefault(report.dataset, DatasetSummary())
                total.files += 1
                total.read += report.read
                total.loaded += report.loaded
                total.duplicate += report.duplicate
                total.rejected += report.rejected
                total.load_ids.append(report.load_id)
                if report.first_event_at and report.last_event_at:
                    total.first_event_at = min(
                        total.first_event_at or report.first_event_at, report.first_event_at
                    )
                    total.last_event_at = max(total.last_event_at or report.last_event_at, report.last_event_at)
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
