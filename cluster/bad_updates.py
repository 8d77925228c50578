"""Updates that were skipped because of their numbers: a few are data, three in a row are a broken policy. No I/O."""

from contracts.reports import StepReport

IN_A_ROW = 3


class BadUpdates:
    """Counts until an update is made."""

    def __init__(self) -> None:
        self.in_a_row = 0
        self.total = 0

    def roll_back_after(self, report: StepReport) -> bool:
        """True for every third skipped update in a row: go back to a checkpoint."""
        self.in_a_row = self.in_a_row + 1 if report.skipped else 0
        self.total += bool(report.skipped)
        return self.in_a_row > 0 and self.in_a_row % IN_A_ROW == 0
