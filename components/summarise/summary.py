"""A run's summary: what is known of its end, as Markdown."""

from __future__ import annotations

from dataclasses import dataclass

from slicewise import RESEARCH_USE

WORDS = {"SUCCEEDED": "done", "FAILED": "failed", "CANCELLED": "stopped", "CANCELED": "stopped"}


@dataclass(frozen=True)
class Row:
    """One stage: its name, Kubeflow's word for its state, how long it took, and where its first output is."""

    stage: str
    state: str
    seconds: float | None
    output: str


@dataclass(frozen=True)
class Summary:
    """How a run ended.

    Attributes:
        state: Kubeflow's word for it.
        failed: The stage that failed, or nothing.
        error: Its own words.
        rows: The stages that began.
        run: The run's id in the cluster.
        outputs: Where artifacts lie: a folder, or the run's pipeline root; nothing stands for the server's default.
    """

    state: str
    failed: str
    error: str
    rows: tuple[Row, ...]
    run: str = ""
    outputs: str = ""

    def markdown(self) -> str:
        """The summary as one page."""
        lines = [f"# SliceWise run {WORDS.get(self.state, self.state.lower())}", ""]
        if self.run:
            lines += [f"Run `{self.run}`", ""]
        if self.failed:
            lines += [f"**{_cell(self.failed)} failed**: {_cell(self.error) or 'see the log of its pod'}", ""]
        if self.rows:
            lines += ["| stage | state | seconds | output |", "| --- | --- | --- | --- |"]
            lines += [_line(row) for row in self.rows]
            lines.append("")
        place = f"`{self.outputs}`" if self.outputs else "the server's default pipeline root"
        lines += [f"Outputs: {place}", "", RESEARCH_USE, ""]
        return "\n".join(lines)


def _line(row: Row) -> str:
    seconds = "" if row.seconds is None else f"{row.seconds:.1f}"
    output = f"`{row.output}`" if row.output else ""
    return f"| {_cell(row.stage)} | {WORDS.get(row.state, row.state.lower())} | {seconds} | {output} |"


def _cell(text: str) -> str:
    """Text in one line that ends no cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")
